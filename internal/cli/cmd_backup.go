package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

const (
	// backupMagic begins every backup.
	backupMagic = "holdfast snapshot\n"
	// backupPiece is how many bytes of a backup travel in one message.
	backupPiece = 256 << 10
)

// backupCheck checks a backup as its bytes pass by: it begins with the magic
// line and ends with the SHA-256 of all before. The zero value is not ready.
type backupCheck struct {
	sum  hash.Hash
	head []byte
	// tail is what may be the checksum: the last bytes seen.
	tail []byte
	size int64
}

func newBackupCheck() *backupCheck { return &backupCheck{sum: sha256.New()} }

// Write implements io.Writer; it never fails.
func (c *backupCheck) Write(b []byte) (int, error) {
	n := len(b)
	c.size += int64(n)
	if missing := len(backupMagic) - len(c.head); missing > 0 {
		c.head = append(c.head, b[:min(missing, len(b))]...)
	}
	c.tail = append(c.tail, b...)
	if extra := len(c.tail) - sha256.Size; extra > 0 {
		c.sum.Write(c.tail[:extra])
		c.tail = append(c.tail[:0], c.tail[extra:]...)
	}
	return n, nil
}

// verify tells what is wrong with what has passed.
func (c *backupCheck) verify() error {
	switch {
	case string(c.head) != backupMagic:
		return errors.New("it is not a backup of Holdfast")
	case !bytes.Equal(c.sum.Sum(nil), c.tail):
		return errors.New("it is damaged or not complete: the checksum does not fit")
	}
	return nil
}

// clusterBackup is `cluster backup FILE`.
func (a *app) clusterBackup() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Write the state of the answering server to a file",
		Long:    "Write the state of the answering server to a file, while it serves; - is standard output. The\nfile appears only once it is complete and its checksum fits.",
		Example: "holdfast cluster backup holdfast-$(date +%F).backup\nholdfast cluster backup - | gzip > holdfast.backup.gz",
		Args:    exactArgs("FILE"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.backup(cmd.Context(), args[0], force) },
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace the file if it exists")
	return cmd
}

// backup receives a backup into a file.
func (a *app) backup(ctx context.Context, name string, force bool) (err error) {
	check := newBackupCheck()
	if name == "-" {
		if a.io.OutTTY {
			return usage("refusing to write a backup to a terminal").hint("name a file")
		}
		if err := a.connect(); err != nil {
			return err
		}
		if err := a.receiveBackup(ctx, io.MultiWriter(check, a.io.Out)); err != nil {
			return err
		}
		return a.checkBackup(check)
	}
	if _, err := os.Stat(name); err == nil && !force {
		return fail(exitRefused, "%s exists", name).hint("name another file, or give --force to replace it")
	}
	if err := a.connect(); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return fileFailure(name, err)
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
		}
	}()
	if err := a.receiveBackup(ctx, io.MultiWriter(check, tmp)); err != nil {
		return err
	}
	if err := a.checkBackup(check); err != nil {
		return err
	}
	for _, step := range []func() error{tmp.Sync, tmp.Close, func() error { return os.Rename(tmp.Name(), name) }} {
		if err := step(); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return a.say("%s: %s", name, humanBytes(uint64(check.size)))
}

// checkBackup fails when what was received is no whole backup.
func (a *app) checkBackup(check *backupCheck) error {
	if err := check.verify(); err != nil {
		return fail(exitError, "what the server sent cannot be used as a backup: %v", err).hint("try again, or another server with --addr")
	}
	return nil
}

// receiveBackup streams a backup. A stream that broke off is not resumed: w has
// part of it already.
func (a *app) receiveBackup(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range a.remote.addrs {
		stream, err := holdfastv1.NewClusterServiceClient(a.remote.conns[a.remote.current]).Backup(ctx, &holdfastv1.BackupRequest{})
		var got int64
		for err == nil {
			var res *holdfastv1.BackupResponse
			if res, err = stream.Recv(); err == nil {
				got += int64(len(res.GetData()))
				if _, werr := w.Write(res.GetData()); werr != nil {
					return fmt.Errorf("write backup: %w", werr)
				}
				a.progress("%s received", humanBytes(uint64(got)))
			}
		}
		a.clearProgress()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if got > 0 || status.Code(err) != codes.Unavailable {
			return a.rpcFailure("back up", err)
		}
		a.remote.current = (a.remote.current + 1) % len(a.remote.addrs)
		if a.remote.current == 0 || len(a.remote.addrs) == 1 {
			return a.rpcFailure("back up", err)
		}
	}
	return nil
}

// clusterRestore is `cluster restore FILE`.
func (a *app) clusterRestore() *cobra.Command {
	var yes bool
	var reason string
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Replace the state of the whole cluster by a backup",
		Long:    "Replace the state of the whole cluster, every namespace, by a backup, at once. The epoch rises\nand everybody who watches is brought in line.",
		Example: "holdfast cluster restore holdfast-2026-01-31.backup --reason \"undo the bad apply\" --yes",
		Args:    exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.restore(cmd.Context(), args[0], reason, yes)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	a.reasonFlag(cmd, &reason)
	return cmd
}

// restore checks a backup, asks, and sends it.
func (a *app) restore(ctx context.Context, name, reason string, yes bool) error {
	file, err := os.Open(name)
	if err != nil {
		return fileFailure(name, err)
	}
	defer func() { _ = file.Close() }() // only read
	check := newBackupCheck()
	if _, err := io.Copy(check, file); err != nil {
		return fileFailure(name, err)
	}
	if err := check.verify(); err != nil {
		return usage("cannot restore %s: %v", name, err).hint("nothing was sent; take another backup")
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fileFailure(name, err)
	}
	if reason, err = a.reason(reason); err != nil {
		return err
	}
	if err := a.connect(); err != nil {
		return err
	}
	now, err := a.status(ctx)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("replace the state of the whole cluster (revision %d, %s) by %s (%s)",
		now.GetHeader().GetRevision(), plural(int(now.GetResources()), "resource"), name, humanBytes(uint64(check.size)))
	if err := a.asker.confirm(yes, what); err != nil {
		return err
	}
	res, err := a.sendBackup(ctx, file, reason, uint64(check.size))
	if err != nil {
		return err
	}
	return a.say("restored %s: %s, epoch %d, revision %d", name, plural(int(res.GetResources()), "resource"),
		res.GetHeader().GetEpoch().GetCounter(), res.GetHeader().GetRevision())
}

// sendBackup streams a backup to the server that answered last. It has no request
// id, so it is sent again only if a server says that nothing was done, and that
// the same may succeed later: a cluster that has just started elects its leader.
func (a *app) sendBackup(ctx context.Context, file io.ReadSeeker, reason string, size uint64) (*holdfastv1.RestoreResponse, error) {
	begin, told := time.Now(), false
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		res, err := a.sendBackupOnce(ctx, file, reason, size)
		if err == nil || ctx.Err() != nil || !definite(err) || !repeatable(err) || time.Since(begin)+pause > a.remote.timeout {
			return res, a.restoreFailure(err)
		}
		if !told {
			told = true
			a.remote.notice("%s; trying again for up to %s", briefly(err), humanLimit(a.remote.timeout))
		}
		a.remote.current = (a.remote.current + 1) % len(a.remote.conns)
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return nil, fileFailure("the backup", err)
		}
		sleep(ctx, pause)
	}
}

// restoreFailure says what the failure of a restore leaves behind.
func (a *app) restoreFailure(err error) error {
	var local *failure
	switch {
	case err == nil:
		return nil
	case errors.As(err, &local):
		return err
	case definite(err):
		return a.rpcFailure("restore", err)
	}
	f := fail(exitUnavailable, "it is not known whether the backup was restored: %s", briefly(err))
	f.cause = err
	return f.hint("look with `holdfast cluster status`: if it was, the epoch has risen; if not, restore again")
}

// sendBackupOnce is one attempt; its failure is what the server or gRPC said, or
// one of the file.
func (a *app) sendBackupOnce(ctx context.Context, file io.Reader, reason string, size uint64) (*holdfastv1.RestoreResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer a.clearProgress()
	stream, err := holdfastv1.NewClusterServiceClient(a.remote.conns[a.remote.current]).Restore(ctx)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, backupPiece)
	var sent uint64
	for first := true; ; first = false {
		n, rerr := io.ReadFull(file, buf)
		if n > 0 {
			req := &holdfastv1.RestoreRequest{Data: buf[:n]}
			if first {
				req.Reason, req.ClaimedActor = reason, a.actor()
			}
			if stream.Send(req) != nil {
				break // CloseAndRecv tells why
			}
			sent += uint64(n)
			a.progress("%s of %s sent", humanBytes(sent), humanBytes(size))
		}
		if errors.Is(rerr, io.EOF) || errors.Is(rerr, io.ErrUnexpectedEOF) {
			break
		}
		if rerr != nil {
			return nil, fileFailure("the backup", rerr)
		}
	}
	return stream.CloseAndRecv()
}

// exists tells whether a file is there.
func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil || !errors.Is(err, fs.ErrNotExist)
}
