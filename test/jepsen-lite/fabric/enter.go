package fabric

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// entered marks the environment of everything that runs inside.
const entered = "JEPSEN_NAMESPACES"

// ErrForbidden tells that this machine does not let this user make namespaces.
var ErrForbidden = errors.New("namespaces are forbidden here")

// Entered tells whether this process runs in namespaces that Enter made.
func Entered() bool { return os.Getenv(entered) != "" }

// Enter runs this program a second time, with these arguments, in user, network,
// mount and process namespaces of its own, and waits for it. In that second process,
// and in the ones that it starts, it returns entered. In the first one it returns the
// exit code to end with; SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on once,
// whoever else the terminal would have sent them to. An error, then an ErrForbidden,
// means that nothing has run: go on without namespaces, or tell the user.
//
// Inside, loopback is up and nothing else is there; /proc is its own. When the second
// process ends, or the first is killed, the kernel ends everything inside, and with it
// every address, rule and mount.
func Enter(args []string) (inside bool, exit int, err error) {
	if Entered() {
		if os.Getpid() == 1 {
			move()
		}
		return true, 0, nil
	}
	// The kernel ties the death signal of a child to the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = nil
	for _, own := range mappings() {
		if exit, err = outside(args, own); err == nil {
			return false, exit, nil
		}
	}
	return false, 0, fmt.Errorf("%w: %w: run as root or with --privileged, or allow unprivileged user namespaces "+
		"(sysctl kernel.apparmor_restrict_unprivileged_userns=0)", ErrForbidden, err)
}

// outside starts the second process and waits until it has ended.
func outside(args []string, own mapping) (int, error) {
	ready, report, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("make pipe: %w", err)
	}
	defer func() { _ = ready.Close() }()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), entered+"=1")
	cmd.ExtraFiles = []*os.File{report}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:                 unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		UidMappings:                own.users,
		GidMappings:                own.groups,
		GidMappingsEnableSetgroups: own.all,
		Pdeathsig:                  syscall.SIGKILL,
		// Apart from the terminal's group, so that Ctrl-C comes once and by us.
		Setpgid: true,
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	err = cmd.Start()
	_ = report.Close()
	if err != nil {
		return 0, fmt.Errorf("start in namespaces: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	complaint, _ := io.ReadAll(ready)
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s)
		case err := <-ended:
			if len(complaint) > 0 {
				return 0, fmt.Errorf("furnish namespaces: %s", complaint)
			}
			return exitCode(cmd, err)
		}
	}
}

func exitCode(cmd *exec.Cmd, err error) (int, error) {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("wait for the process in namespaces: %w", err)
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// move furnishes the namespaces, once, by the first process in them. It ends the
// process if it cannot, and tells the one outside why.
func move() {
	const reportFD = 3
	if err := furnish(); err != nil {
		_, _ = unix.Write(reportFD, []byte(err.Error()))
		os.Exit(1)
	}
	_ = unix.Close(reportFD)
}

func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer func() { _ = unix.Close(socket) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("name loopback: %w", err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	return nil
}

// mapping is who is who in a user namespace.
type mapping struct {
	users, groups []syscall.SysProcIDMap
	all           bool
}

// mappings are those worth trying: root keeps everybody, as it may own nothing in the
// place that it runs in; others, and a root without privilege, become root alone.
func mappings() []mapping {
	alone := mapping{
		users:  []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		groups: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}
	users, err := ownMap("/proc/self/uid_map")
	groups, err2 := ownMap("/proc/self/gid_map")
	if os.Geteuid() != 0 || errors.Join(err, err2) != nil {
		return []mapping{alone}
	}
	return []mapping{{users: users, groups: groups, all: true}, alone}
}

// ownMap maps every id that is known here to itself.
func ownMap(path string) ([]syscall.SysProcIDMap, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read own ids: %w", err)
	}
	defer func() { _ = file.Close() }()
	var ids []syscall.SysProcIDMap
	for {
		var here, there, size int
		if _, err := fmt.Fscan(file, &here, &there, &size); errors.Is(err, io.EOF) {
			return ids, nil
		} else if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		ids = append(ids, syscall.SysProcIDMap{ContainerID: here, HostID: here, Size: size})
	}
}
