# Completion of inv and rolling-upgrade for fish: source it from ~/.config/fish/config.fish. Environments and hosts are completed too.
function __rolling_inv
    set -l line (commandline --tokenize --cut-at-cursor)
    switch "$line[-1]"
        case --env --environment -e --from
            $line[1] completion --names environments 2>/dev/null
        case --to
            contains promote $line; and $line[1] completion --names environments 2>/dev/null
        case --host --hosts
            $line[1] completion --names hosts 2>/dev/null
        case '*'
            $line[1] --complete -- (commandline --cut-at-cursor) 2>/dev/null
    end
end
complete --command inv --no-files --arguments '(__rolling_inv)'
complete --command invoke --no-files --arguments '(__rolling_inv)'
complete --command rolling-upgrade --no-files --arguments '(__rolling_inv)'
