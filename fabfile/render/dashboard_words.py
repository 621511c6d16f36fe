"""The words of the Grafana dashboard in both languages: titles, descriptions, states, legends. It knows no series."""

from __future__ import annotations

#: Of each row of panels: English, Traditional Chinese.
ROWS = {
    "health": ("Service health", "服務健康"),
    "response": ("Response time", "回應時間"),
    "requests": ("Requests", "請求"),
    "resources": ("Resources", "主機資源"),
    "releases": ("Releases", "發行"),
}

#: Of each panel: its title and what it says, in English and in Traditional Chinese.
PANELS = {
    "service_health": (
        ("Service health", "Each check at the watchdog's last look, the worst of the chosen hosts."),
        ("服務健康狀態", "監控程式最近一次檢查的各項結果，取所選主機中最差者。"),
    ),
    "site": (
        ("Site from outside", "Whether the monitoring host gets an answer from the public site of each host."),
        ("外部連線", "監控主機能否從外部連上各主機的公開網站。"),
    ),
    "heartbeat": (
        ("Watchdog's last look", "How long ago the watchdog looked. While it is old, the checks beside it are too."),
        ("監控程式上次檢查", "距監控程式上次檢查的時間；過久時，其他檢查結果也已過時。"),
    ),
    "look": (
        ("Host looked at", "Whether the watchdog could look at its host. Where not, there are no checks of it."),
        ("主機可檢查", "監控程式能否檢查所在主機；不能時不會有該主機的檢查結果。"),
    ),
    "given_up": (
        ("Recovery given up", "Recoveries did not help and the watchdog has stopped them: a person is needed."),
        ("已放棄自動恢復", "自動恢復無效，監控程式已停止嘗試，需要人員處理。"),
    ),
    "checks": (
        ("Checks over time", "Every check of every chosen host."),
        ("檢查結果變化", "所選主機的每一項檢查。"),
    ),
    "response_time": (
        ("Response time", "How long visitors wait, by service: half, 95 % and 99 % of requests are faster."),
        ("響應時間", "各服務的請求耗時：50 %、95 % 與 99 % 的請求比此更快。"),
    ),
    "answer_time": (
        ("Response time", "How long the answers to the watchdog's checks take, the slowest of the chosen hosts."),
        ("響應時間", "監控程式各項檢查的回應耗時，取所選主機中最慢者。"),
    ),
    "site_time": (
        ("Probe of the site", "How long a request from the monitoring host takes: in all by host, and by phase."),
        ("外部探測耗時", "監控主機一次請求的耗時：各主機總計，以及各階段平均。"),
    ),
    "color_time": (
        ("Response time by color", "95 % of requests are faster, by service and color: a new release beside the old."),
        ("各顏色響應時間", "各服務與顏色 95 % 的請求比此更快，可比較新舊發行。"),
    ),
    "check_time": (
        ("Answers to checks", "How long the answers to the watchdog's checks take, the slowest of the chosen hosts."),
        ("檢查耗時", "監控程式各項檢查的回應耗時，取所選主機中最慢者。"),
    ),
    "color_requests": (
        ("Requests by color", "Requests of visitors, by service and the color that was asked."),
        ("各顏色請求數", "訪客的請求，依服務與處理的顏色。"),
    ),
    "server_errors": (
        ("Server errors", "The share of requests answered with 5xx, by service and color."),
        ("伺服器錯誤率", "以 5xx 回應的請求比例，依服務與顏色。"),
    ),
    "answers": (
        ("Answers by status", "Requests of visitors by the first digit of the status."),
        ("各狀態碼回應數", "訪客的請求，依狀態碼首位數字。"),
    ),
    "cpu": (
        ("CPU", "The share of all processors' time that is in use."),
        ("處理器", "所有處理器使用中的時間比例。"),
    ),
    "memory": (
        ("Memory", "The share in use that cannot be freed at once; the line is what inv health allows."),
        ("記憶體", "使用中且無法立即釋放的比例；線為 inv health 的上限。"),
    ),
    "load": (
        ("Load per CPU", "Processes that run or wait, over five minutes; above 1 some wait."),
        ("每處理器負載", "五分鐘內執行或等待的程序數；大於 1 表示有程序等待。"),
    ),
    "disk": (
        (
            "Disk free",
            "What is free, and in 24 hours if it goes on as in the last 6; the line is what inv health wants.",
        ),
        ("磁碟可用空間", "目前可用比例，以及依近 6 小時趨勢預測 24 小時後的比例；線為 inv health 的下限。"),
    ),
    "network": (
        ("Network", "Bytes in and out of each host, containers' own interfaces left out."),
        ("網路", "各主機的傳入與傳出量，不含容器內部介面。"),
    ),
    "connections": (
        ("Nginx connections", "Connections of visitors by state, of all sites on the chosen hosts."),
        ("Nginx 連線", "訪客連線，依狀態；含所選主機上所有網站。"),
    ),
    "serving": (
        ("What serves", "The release of each service on each host, by the labels of its container."),
        ("服務中的版本", "各主機各服務目前的發行，依容器標籤。"),
    ),
    "lock_holder": (
        ("Who holds the lock", "Who took the lock of which host, why, and when; empty while it is free."),
        ("鎖定者", "各主機由誰鎖定、原因與時間；未鎖定時為空。"),
    ),
    "last_outcome": (
        ("Last deploy", "How the last deploy or rollback of each host ended."),
        ("上次部署結果", "各主機上次部署或回復版本的結果。"),
    ),
    "last_time": (
        ("Last deploy was", "When the last deploy or rollback of each host was."),
        ("上次部署時間", "各主機上次部署或回復版本的時間。"),
    ),
    "last_duration": (
        ("Last deploy took", "How long the last deploy or rollback of each host took."),
        ("上次部署耗時", "各主機上次部署或回復版本的耗時。"),
    ),
    "lock": (
        ("Lock", "Whether somebody holds the lock of a host: no other run begins there."),
        ("鎖定", "主機是否被鎖定；鎖定時其他執行不會開始。"),
    ),
    "maintenance": (
        ("Maintenance page", "Whether visitors of a host get the maintenance page."),
        ("維護頁面", "主機的訪客是否看到維護頁面。"),
    ),
    "backup": (
        ("Newest backup", "The age of the newest backup that is whole and not found damaged."),
        ("最新備份", "最新一份完整且未發現損壞的備份距今時間。"),
    ),
    "certificate": (
        ("Certificate", "Days until the certificate that visitors get runs out, as the host and as a visitor sees it."),
        ("憑證", "訪客所見憑證的剩餘天數，分別由主機與外部觀察。"),
    ),
    "restarts": (
        ("Restarts", "Crashes in the chosen time after which Podman restarted a container, by service."),
        ("重新啟動", "所選時間內當機後由 Podman 重新啟動的次數，依服務。"),
    ),
    "recoveries": (
        ("Recoveries", "What the watchdog did in the chosen time, and how often that failed."),
        ("自動恢復", "所選時間內監控程式執行的恢復次數，以及失敗次數。"),
    ),
}

#: Of each annotation: its name, the title and the text of its marks. `{{…}}` is a label of the series.
ANNOTATIONS = {
    "deploys": (
        ("Deploys", "Deploy", "{{action}} on {{host}}: done"),
        ("部署", "部署", "{{host}}：{{action}} 完成"),
    ),
    "failed_deploys": (
        ("Failed deploys", "Failed deploy", "{{action}} on {{host}}: failed, inv history says how it ended"),
        ("失敗的部署", "部署失敗", "{{host}}：{{action}} 失敗，詳見 inv history"),
    ),
    "recoveries": (
        ("Recoveries", "Recovery", "{{act}} on {{host}}"),
        ("自動恢復", "自動恢復", "{{host}}:{{act}}"),
    ),
}

#: Everything else: states, what a legend says beside a label, columns, variables.
TEXTS = {
    "title": ("{app} · {environment}", "{app} {environment} 監控"),
    "well": ("OK", "正常"),
    "unwell": ("Failing", "異常"),
    "no": ("No", "否"),
    "yes": ("Yes", "是"),
    "done": ("Done", "完成"),
    "failed": ("Failed", "失敗"),
    "free": ("Free", "未鎖定"),
    "held": ("Held", "已鎖定"),
    "down": ("Off", "關閉"),
    "up": ("On", "開啟"),
    "in": ("in", "傳入"),
    "out": ("out", "傳出"),
    "predicted": ("in 24 h", "24 小時後"),
    "outside": ("from outside", "外部"),
    "none": ("None", "無"),
    "host": ("Host", "主機"),
    "service": ("Service", "服務"),
    "version": ("Version", "版本"),
    "color": ("Color", "顏色"),
    "release": ("Release", "發行編號"),
    "digest": ("Digest", "摘要"),
    "who": ("Who", "執行者"),
    "reason": ("Reason", "原因"),
    "since": ("Since", "開始時間"),
    "datasource": ("Data source", "資料來源"),
}


class Words:
    """The words of one language; every language but `zh-TW` is English."""

    def __init__(self, language: str) -> None:
        self._column = 1 if language == "zh-TW" else 0

    def row(self, key: str) -> str:
        """The title of a row."""
        return ROWS[key][self._column]

    def panel(self, key: str) -> tuple[str, str]:
        """The title and the description of a panel."""
        return PANELS[key][self._column]

    def annotation(self, key: str) -> tuple[str, str, str]:
        """The name of an annotation, the title and the text of its marks."""
        return ANNOTATIONS[key][self._column]

    def text(self, key: str) -> str:
        """Any other word."""
        return TEXTS[key][self._column]
