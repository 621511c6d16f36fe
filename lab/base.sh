#!/bin/sh
# Turns a bare Debian tree into a lab host. It runs once, inside the tree, while the base image is built.
# With the argument `bare`, it omits everything that prepares a host for deploys.
set -eu
kind=${1:-prepared}

# '*' disables password logins; '!' would make sshd refuse keys too.
usermod -p '*' root
if [ "$kind" = prepared ]; then
	useradd --create-home --shell /bin/bash --uid 1000 deploy
	grep -q '^deploy:' /etc/subuid || echo deploy:100000:65536 >>/etc/subuid
	grep -q '^deploy:' /etc/subgid || echo deploy:100000:65536 >>/etc/subgid
	usermod -p '*' deploy
fi

# Each host gets its own host keys when it is created; only the lab's key can log in.
rm -f /etc/ssh/ssh_host_*
mkdir -p /etc/ssh/sshd_config.d
cat >/etc/ssh/sshd_config.d/lab.conf <<'EOF'
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/lab_authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UseDNS no
MaxStartups 100:30:200
EOF

# On a bare host, only root has that key: setup installs the keys of the deploy user.
if [ "$kind" = bare ]; then
	sed -i '/^AuthorizedKeysFile/d' /etc/ssh/sshd_config.d/lab.conf
	printf 'Match User root\n\tAuthorizedKeysFile .ssh/authorized_keys /etc/ssh/lab_authorized_keys\n' \
		>>/etc/ssh/sshd_config.d/lab.conf
fi

# At each boot, set what a container lacks in comparison with a machine: device permissions and a shared root mount.
cat >/etc/systemd/system/lab-host.service <<'EOF'
[Unit]
Description=Make this container behave as a machine
DefaultDependencies=no
After=local-fs.target
Before=sysinit.target ssh.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/chmod 666 /dev/fuse /dev/net/tun
ExecStart=/bin/mount --make-rshared /
# On a machine with hybrid cgroups crun refuses as long as the v2 side offers any controller, even an unused one.
ExecStart=/bin/sh -c '[ ! -f /sys/fs/cgroup/unified/cgroup.controllers ] || { : >/run/no-controllers; mount --bind /run/no-controllers /sys/fs/cgroup/unified/cgroup.controllers; }'

[Install]
WantedBy=sysinit.target
EOF

# An interrupted installation is repeated from the start, so dpkg needs no fsync for each file. Nobody reads translated
# descriptions.
echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/lab
echo 'Acquire::Languages "none";' >/etc/apt/apt.conf.d/lab

# Podman 5 warns about the cgroup v1 of an outer machine; a host of the lab cannot change that.
echo PODMAN_IGNORE_CGROUPSV1_WARNING=1 >>/etc/environment
mkdir -p /etc/systemd/system.conf.d /etc/systemd/user.conf.d /etc/systemd/journald.conf.d
printf '[Manager]\nDefaultEnvironment=PODMAN_IGNORE_CGROUPSV1_WARNING=1\n' |
	tee /etc/systemd/system.conf.d/lab.conf >/etc/systemd/user.conf.d/lab.conf
printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=32M\n' >/etc/systemd/journald.conf.d/lab.conf

# Debian 12 uses vfs for rootless Podman by default.
if [ "$kind" = prepared ]; then
	mkdir -p /etc/containers
	printf '[storage]\ndriver = "overlay"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n' \
		>/etc/containers/storage.conf
fi

# The PostgreSQL server is installed without a cluster; tests create one.
for cluster in /etc/postgresql/*/main; do
	if [ -d "$cluster" ]; then pg_dropcluster "$(basename "$(dirname "$cluster")")" main; fi
done

# Kernel settings and modules belong to the outer machine, and a privileged container could change them.
# Each boot requests modules repeatedly; without modprobe, systemd would mark these units as failed.
ln -s /dev/null /etc/systemd/system/modprobe@.service
rm -f /usr/lib/sysctl.d/*.conf /etc/sysctl.d/*.conf
systemctl enable lab-host.service ssh.service
if [ "$kind" = prepared ]; then
	systemctl enable nginx.service
	systemctl disable docker-registry.service podman-auto-update.service podman-auto-update.timer postgresql.service
	systemctl mask apt-daily.timer apt-daily-upgrade.timer
fi
systemctl mask systemd-binfmt.service proc-sys-fs-binfmt_misc.automount systemd-modules-load.service systemd-udevd.service systemd-networkd.service \
	systemd-resolved.service man-db.timer e2scrub_all.timer \
	e2scrub_reap.service fstrim.timer dpkg-db-backup.timer getty.target console-getty.service
rm -f /etc/machine-id && : >/etc/machine-id
