package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxFileBytes is the largest file that is read.
const maxFileBytes = 128 << 20

// stdinName is how messages call standard input.
const stdinName = "<stdin>"

// readFile reads a file, or standard input where the name is "-".
func (a *app) readFile(name string) ([]byte, error) {
	in := a.io.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fileFailure(name, err)
		}
		defer func() { _ = f.Close() }() // only read
		in = f
	} else if a.io.InTTY {
		a.notice("reading standard input; end it with Ctrl-D")
	}
	src, err := io.ReadAll(io.LimitReader(in, maxFileBytes+1))
	if err != nil {
		return nil, fileFailure(name, err)
	}
	if len(src) > maxFileBytes {
		return nil, usage("%s is larger than %s", name, humanBytes(maxFileBytes)).
			hint("split it; several files can be given with several -f")
	}
	return src, nil
}

// fileFailure says that a file cannot be used.
func fileFailure(name string, err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	}
	f := usage("cannot read %s: %v", name, err)
	f.cause = err
	return f
}

// definitionFiles lists what -f means: a file, "-", or every .yaml, .yml and
// .json file below a directory, in the order of their names, hidden ones left
// out.
func definitionFiles(arg string) ([]string, error) {
	if arg == "-" {
		return []string{arg}, nil
	}
	info, err := os.Stat(arg)
	if err != nil {
		return nil, fileFailure(arg, err)
	}
	if !info.IsDir() {
		return []string{arg}, nil
	}
	var out []string
	err = filepath.WalkDir(arg, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path != arg && strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		switch strings.ToLower(filepath.Ext(path)) {
		case ".yaml", ".yml", ".json":
			if !d.IsDir() {
				out = append(out, path)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fileFailure(arg, err)
	}
	if len(out) == 0 {
		return nil, usage("no .yaml, .yml or .json file in %s", arg)
	}
	return out, nil
}

// readManifests reads every document of files and directories, or fails with all
// that is wrong with any of them.
func (a *app) readManifests(args []string, namespace string) ([]*manifest, error) {
	r := manifestReader{namespace: namespace}
	if _, err := a.readInto(&r, args); err != nil {
		return nil, err
	}
	if len(r.problems) > 0 {
		return nil, problemFailure(r.problems)
	}
	return r.manifests, nil
}

// readInto has a reader read every document of files and directories, and returns
// how many files these are.
func (a *app) readInto(r *manifestReader, args []string) (int, error) {
	count := 0
	for _, arg := range args {
		files, err := definitionFiles(arg)
		if err != nil {
			return 0, err
		}
		for _, file := range files {
			src, err := a.readFile(file)
			if err != nil {
				return 0, err
			}
			name := file
			if file == "-" {
				name = stdinName
			}
			r.parse(name, src)
			count++
		}
	}
	return count, nil
}

// writeFileAtomic writes a file so that a reader sees the old or the new content,
// never a part.
func writeFileAtomic(name string, data []byte, perm os.FileMode) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("create file beside %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
		}
	}()
	if err := tmp.Chmod(perm); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("protect %s: %w", tmp.Name(), err)
	}
	if _, err := tmp.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", tmp.Name(), err)
	}
	if err := tmp.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", tmp.Name(), err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("close %s: %w", tmp.Name(), err)
	}
	if err := os.Rename(tmp.Name(), name); err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	return nil
}
