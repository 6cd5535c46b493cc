"""Virtual machines with Debian's own kernel and our programs, for what this machine's kernel cannot show.

The kernel and its modules come from Debian's package, unpacked into the build directory and never installed. The root
file system is an initramfs made here: shoald, what it runs (conmon, crun, runc), their shared libraries, busybox.
Nothing is loaded or set up for shoald beyond what a machine has after its boot: modules come by the kernel's own
requests. qemu runs it without KVM, so that it works inside other virtual machines; that costs a factor of 30 or so.

The guest's console (ttyS0) goes to a file. A virtio port takes commands: VM.run returns exit code and output.
The Engine API is relayed to a socket of this machine, so that the clients run here, at full speed.
"""
import base64
import contextlib
import glob
import os
import re
import shutil
import socket
import stat
import subprocess
import tempfile
import time

from shoaltest import BUILD, ROOT, Node, image_archive, run, wait_for

QEMU = "/usr/bin/qemu-system-x86_64"
BUSYBOX = "/bin/busybox"
META_PACKAGE = "linux-image-cloud-amd64"
ADDRESS = "10.0.2.15"  # of the guest in qemu's user network
HOST_ADDRESS = "10.0.2.2"  # as the guest sees a client on this machine
SOCKET = "/run/shoal.sock"

# Folders of modules below kernel/: what a node may ask the kernel for, and the network card.
MODULE_DIRS = ("net/netfilter", "net/ipv4", "net/ipv6", "net/bridge", "net/802", "net/llc", "net/core", "net/sched", "fs/overlayfs",
               "drivers/net/veth.ko", "drivers/net/dummy.ko", "drivers/net/tun.ko", "drivers/net/vxlan", "drivers/net/virtio_net.ko",
               "drivers/net/net_failover.ko", "drivers/virtio", "drivers/char/virtio_console.ko", "lib", "arch/x86/crypto", "crypto")


class Unavailable(Exception):
    """Something that the machine lacks, in words for the skip."""


def kernel():
    """(version, vmlinuz, folder of modules); downloaded once into the build directory."""
    cache = os.path.join(BUILD, "vm-kernel")
    found = glob.glob(os.path.join(cache, "boot", "vmlinuz-*"))
    if not found:
        os.makedirs(BUILD, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="vm-kernel-", dir=BUILD) as tmp:
            os.chmod(tmp, 0o777)  # apt downloads as a user of its own
            deb = download(tmp)
            root = os.path.join(tmp, "root")
            run("dpkg", "-x", deb, root, timeout=120)
            with contextlib.suppress(OSError):  # another run was first
                os.rename(root, cache)
        found = glob.glob(os.path.join(cache, "boot", "vmlinuz-*"))
    version = os.path.basename(found[0])[len("vmlinuz-"):]
    return version, found[0], os.path.join(cache, "lib", "modules", version)


def download(directory):
    """The package that Debian's meta package names now; the lists are brought up to date when it is gone."""
    errors = []
    for update in (False, True):
        if update:
            run("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", "update", check=False, timeout=300)
        text = run("apt-cache", "depends", META_PACKAGE, check=False).stdout
        m = re.search(r"Depends: (linux-image-\S+)", text)
        if not m:
            errors.append(f"apt does not know {META_PACKAGE}")
            continue
        r = run("apt-get", "-q", "download", m.group(1), check=False, cwd=directory, timeout=300)
        debs = glob.glob(os.path.join(directory, "*.deb"))
        if r.returncode == 0 and debs:
            return debs[0]
        errors.append(r.stderr.strip())
    raise Unavailable("the kernel's package cannot be downloaded: " + "; ".join(errors))


class Cpio:
    """An initramfs (newc). /bin, /lib, /lib64 and /sbin are links into /usr, as on Debian."""

    def __init__(self):
        self.entries = {}
        for d in ("bin", "sbin", "lib", "lib64"):
            self.dir("usr/" + d)
            self.link(d, "usr/" + d)

    @staticmethod
    def place(path):
        path = path.lstrip("/")
        return "usr/" + path if path.split("/")[0] in ("bin", "sbin", "lib", "lib64") and "/" in path else path

    def add(self, path, mode, data=b"", rdev=(0, 0)):
        path = self.place(path)
        if os.path.dirname(path) and os.path.dirname(path) not in self.entries:
            self.dir(os.path.dirname(path))
        self.entries[path] = (mode, data, rdev)

    def dir(self, path, mode=0o755):
        self.add(path, stat.S_IFDIR | mode)

    def link(self, path, target):
        if self.place(path) not in self.entries:
            self.add(path, stat.S_IFLNK | 0o777, target.encode())

    def file(self, path, text, mode=0o644):
        self.add(path, stat.S_IFREG | mode, text.encode() if isinstance(text, str) else text)

    def host_file(self, host, path=None, mode=None):
        with open(host, "rb") as f:
            self.file(path or host, f.read(), mode if mode is not None else stat.S_IMODE(os.stat(host).st_mode))

    def program(self, host, path=None):
        """A program with the shared libraries that it is linked with."""
        self.host_file(os.path.realpath(host), path or host, 0o755)
        for m in re.finditer(r"(?:=> )?(/\S+) \(0x", run("ldd", host, check=False).stdout):
            if self.place(m.group(1)) not in self.entries:
                self.host_file(m.group(1))

    def write(self, out):
        with open(out, "wb") as f:
            for ino, (path, (mode, data, rdev)) in enumerate([*self.entries.items(), ("TRAILER!!!", (0, b"", (0, 0)))], 1):
                name = path.encode() + b"\0"
                head = (ino, mode, 0, 0, 1, 0, len(data), 0, 0, rdev[0], rdev[1], len(name), 0)
                f.write(b"070701" + b"".join(b"%08x" % v for v in head) + name)
                f.write(b"\0" * (-f.tell() % 4))
                f.write(data)
                f.write(b"\0" * (-f.tell() % 4))


# The containers' root is changed by pivot_root, which the kernel refuses where / is the initramfs itself: so / is bound
# over itself first. Then either systemd goes on, or this script as a machine without it; "cgroups" is the layout then.
INIT = r"""#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
if [ ! -d /run/second ]; then
	mkdir /run/second
	mount --bind / /mnt
	cd /mnt
	mount --move . /
	exec chroot . /init
fi
mount -t proc proc /proc
read -r cmdline </proc/cmdline
case $cmdline in
*init=systemd*) exec /lib/systemd/systemd ;;
esac
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=755 run /run
case $cmdline in
*cgroups=v1*)
	mount -t tmpfs cgroup /sys/fs/cgroup
	for c in cpuset cpu,cpuacct blkio memory devices freezer pids net_cls,net_prio perf_event hugetlb; do
		mkdir /sys/fs/cgroup/$c
		mount -t cgroup -o $c cgroup /sys/fs/cgroup/$c
	done
	for c in cpu cpuacct; do ln -s cpu,cpuacct /sys/fs/cgroup/$c; done
	for c in net_cls net_prio; do ln -s net_cls,net_prio /sys/fs/cgroup/$c; done
	mkdir /sys/fs/cgroup/systemd
	mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
	;;
*) mount -t cgroup2 cgroup2 /sys/fs/cgroup ;;
esac
exec /bin/sh /commands
"""

# What both kinds of machine have after their boot, and the line of commands.
COMMANDS = r"""
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t tmpfs tmp /tmp
mount -t tmpfs -o mode=755 data /var/lib
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
hostname vm
modprobe virtio_pci
modprobe virtio_net
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
socat -t3600 TCP-LISTEN:2375,fork,reuseaddr UNIX-CONNECT:/run/shoal.sock 2>/dev/null &
modprobe virtio_console
while [ ! -e /dev/vport*p1 ]; do sleep 0.05; done
exec <>$(echo /dev/vport*p1) >&0
echo ready
while :; do # the port reads as ended until the other side is there
	while read -r id limit text; do
		echo "$text" | base64 -d >/tmp/command
		timeout -s KILL "$limit" setsid sh /tmp/command >/tmp/output 2>&1 </dev/null
		echo "$id $? $(wc -c </tmp/output)"
		cat /tmp/output
	done
	sleep 0.05
done
"""

COMMANDS_UNIT = """[Unit]
DefaultDependencies=no
[Service]
ExecStart=/bin/sh /commands
StandardOutput=null
StandardError=null
"""

DEFAULT_TARGET = """[Unit]
DefaultDependencies=no
AllowIsolate=yes
Wants=commands.service
"""


def add_systemd(c):
    """systemd and the targets that units rest on; shoald's unit is the one that is installed, its output goes to a file."""
    c.program("/lib/systemd/systemd")
    c.program("/bin/systemctl")
    for t in ("sysinit", "basic", "shutdown", "multi-user", "network-online"):
        c.host_file(f"/lib/systemd/system/{t}.target")
    with open(os.path.join(ROOT, "packaging", "systemd", "shoald.service.in")) as f:
        c.file("etc/systemd/system/shoald.service", f.read().replace("@SHOALD@", "/usr/sbin/shoald"))
    c.file("etc/systemd/system/shoald.service.d/log.conf", "[Service]\nStandardOutput=append:/run/shoal.log\nStandardError=inherit\n")
    c.file("etc/systemd/system/commands.service", COMMANDS_UNIT)
    c.file("etc/systemd/system/default.target", DEFAULT_TARGET)
    c.file("etc/machine-id", "0123456789abcdef0123456789abcdef\n")


def initramfs(out):
    """Everything that the guest has, written to the file out."""
    version, _, modules = kernel()
    c = Cpio()
    for d, mode in (("dev", 0o755), ("proc", 0o755), ("sys", 0o755), ("run", 0o755), ("mnt", 0o755), ("tmp", 0o1777), ("root", 0o700),
                    ("var/lib", 0o755), ("etc", 0o755)):
        c.dir(d, mode)
    c.add("dev/console", stat.S_IFCHR | 0o600, rdev=(5, 1))
    c.file("init", INIT, 0o755)
    c.file("commands", COMMANDS)
    add_systemd(c)
    c.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    c.file("etc/group", "root:x:0:\n")
    c.file("etc/hosts", "127.0.0.1 localhost\n")
    c.file("etc/resolv.conf", "nameserver 10.0.2.3\n")
    c.host_file("/etc/os-release")
    c.program(os.path.join(BUILD, "shoald"), "/usr/sbin/shoald")
    if os.path.exists(os.path.join(BUILD, "shoal")):
        c.program(os.path.join(BUILD, "shoal"), "/usr/bin/shoal")
    for p in ("conmon", "crun", "runc", "ps", "socat", "modprobe"):
        host = shutil.which(p, path="/usr/sbin:/usr/bin:/sbin:/bin")
        if not host:
            raise Unavailable(f"{p} is not installed")
        c.program(host)
    c.host_file(os.path.realpath(BUSYBOX), "/bin/busybox", 0o755)
    for a in run(BUSYBOX, "--list-full").stdout.split():
        c.link(a, "/bin/busybox")
    with tempfile.TemporaryDirectory(prefix="vm-modules-") as tmp:
        staged = os.path.join(tmp, "lib", "modules", version)
        for d in MODULE_DIRS:
            src, dst = (os.path.join(b, "kernel", d) for b in (modules, staged))
            if os.path.isdir(src):
                shutil.copytree(src, dst)
            elif os.path.exists(src):
                os.makedirs(os.path.dirname(dst), exist_ok=True)
                shutil.copy(src, dst)
        run("/sbin/depmod", "-b", tmp, version, timeout=120)
        for top, _, names in os.walk(tmp):
            for n in names:
                c.host_file(os.path.join(top, n), os.path.join(top, n)[len(tmp):])
    c.write(out)


class VM:
    """A running guest. init: "systemd" or "sh"; cgroups (of the latter): "v2" or "v1". Port `forward` of the guest is reached at 127.0.0.1:self.port, its relay of the Engine
    API at 127.0.0.1:self.api_port."""

    def __init__(self, initrd, init="systemd", cgroups="v2", forward=8000, cpus=2, memory_mb=1024):
        self.dir = tempfile.mkdtemp(prefix="shoalvm-")
        self.console_path = os.path.join(self.dir, "console")
        self.init = init
        self.proc = None
        self.socket = None
        self.next_id = 0
        try:
            self._boot(initrd, init, cgroups, forward, cpus, memory_mb)
        except BaseException:
            self.close()
            raise

    def _boot(self, initrd, init, cgroups, forward, cpus, memory_mb):
        self.socket, theirs = socket.socketpair()
        self.port, self.api_port = free_ports(2)
        with theirs:
            fd = theirs.fileno()
            self.proc = subprocess.Popen(
                [QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(cpus), "-m", str(memory_mb), "-nodefaults", "-no-user-config",
                 "-display", "none", "-no-reboot", "-kernel", kernel()[1], "-initrd", initrd,
                 "-append", f"console=ttyS0 panic=-1 mitigations=off init={init} cgroups={cgroups}",
                 "-serial", f"file:{self.console_path}",
                 "-chardev", f"socket,id=commands,fd={fd}", "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=commands",
                 "-netdev", f"user,id=net0,hostfwd=tcp:127.0.0.1:{self.port}-:{forward},hostfwd=tcp:127.0.0.1:{self.api_port}-:2375",
                 "-device", "virtio-net-pci,netdev=net0,romfile="],
                pass_fds=[fd], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.socket.settimeout(90)
        if self._line() != "ready":
            raise RuntimeError("the guest did not boot:\n" + self.console())

    def _receive(self, most):
        """RuntimeError, which ends every wait, when the guest is gone or says nothing for too long."""
        try:
            data = self.socket.recv(most)
        except TimeoutError:
            raise RuntimeError("the guest does not answer:\n" + self.console()) from None
        if not data:
            self.proc.wait(timeout=20)
            raise RuntimeError("the guest is gone:\n" + self.console() + self.proc.stderr.read())
        return data

    def _line(self):
        line = b""
        while not line.endswith(b"\n"):
            line += self._receive(1)
        return line.decode().strip()

    def run(self, command, check=True, timeout=30):
        """A shell command in the guest; its output (both streams). check=False returns (exit code, output)."""
        self.next_id += 1
        self.socket.settimeout(timeout + 30)
        self.socket.sendall(b"%d %d %s\n" % (self.next_id, timeout, base64.b64encode(command.encode())))
        while True:
            number, code, size = map(int, self._line().split())
            data = b""
            while len(data) < size:
                data += self._receive(size - len(data))
            if number == self.next_id:  # else the answer to one that was given up
                break
        text = data.decode(errors="replace")
        if check and code != 0:
            raise AssertionError(f"{command} exited with {code}\n{text}")
        return text if check else (code, text)

    def read(self, path):
        return self.run(f"cat {path}").rstrip("\n")

    def console(self):
        with contextlib.suppress(OSError), open(self.console_path, errors="replace") as f:
            return f.read()
        return ""

    def close(self):
        if self.proc:
            self.proc.kill()
            self.proc.wait()
            self.proc.stderr.close()
        if self.socket:
            self.socket.close()
        shutil.rmtree(self.dir, ignore_errors=True)


def free_ports(n):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


class _GuestHost:
    """What Node asks of the machine that it runs on."""

    def __init__(self, vm):
        self.dir = vm.dir
        self.ip = ADDRESS


class GuestNode(Node):
    """A shoald in a VM with its default paths; systemd's unit where that is the init."""

    def __init__(self, vm):
        super().__init__(_GuestHost(vm))
        self.vm = vm
        self.log_path = "/run/shoal.log"
        self.relay = subprocess.Popen(["socat", "-t3600", f"UNIX-LISTEN:{self.socket},fork,unlink-early", f"TCP:127.0.0.1:{vm.api_port}"],
                                      stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start(self, wait=True):
        if self.vm.init == "systemd":
            self.vm.run("systemctl start shoald")
        else:
            self.vm.run(f"shoald >>{self.log_path} 2>&1 & echo $! >/run/shoald.pid")
        if wait:
            wait_for(self.alive_and_serving, 120, "shoald serving", interval=0.2)
        return self

    def pid(self):
        return int(self.vm.run("systemctl show -P MainPID shoald" if self.vm.init == "systemd" else "cat /run/shoald.pid"))

    def alive_and_serving(self):
        if self.vm.run(f"kill -0 {self.pid()}", check=False)[0] != 0:
            raise RuntimeError(f"shoald ended:\n{self.log_text()[-4000:]}")
        return run("curl", "-s", "--unix-socket", self.socket, "http://d/_ping", check=False).stdout == "OK"

    def log_text(self):
        return self.vm.read(self.log_path)

    def _end(self, signal):
        pid = self.pid()
        self.vm.run(f"kill -{signal} {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.05; done")

    def kill9(self):
        self._end("KILL")

    def terminate(self):
        if self.vm.init == "systemd":
            self.vm.run("systemctl stop shoald")
        else:
            self._end("TERM")

    def close(self):
        self.relay.kill()
        self.relay.wait()
