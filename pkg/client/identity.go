package client

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/filelock"
)

// identity is the id of an instance, and what keeps another process from using it.
type identity struct {
	id   string
	file *os.File // nil where the id is not kept
}

// identify returns the id of the configuration, else the one that the cache
// directory keeps, else one drawn for this process. A directory that another
// process uses, or that cannot be written, keeps none.
func identify(config *Config) (identity, error) {
	if config.InstanceID != "" || config.CacheDir == "" {
		id := config.InstanceID
		if id == "" {
			id = drawID(config.Service)
		}
		return identity{id: id}, nil
	}
	if err := os.MkdirAll(config.CacheDir, 0o700); err != nil {
		return identity{id: drawID(config.Service)}, fmt.Errorf("keep the id of the instance: %w", err)
	}
	path := filepath.Join(config.CacheDir, "instance-id")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return identity{id: drawID(config.Service)}, fmt.Errorf("keep the id of the instance: %w", err)
	}
	if filelock.Try(f) != nil {
		_ = f.Close() // it was only read
		return identity{id: drawID(config.Service)}, nil
	}
	id, err := keptID(f, config.Service)
	if err != nil {
		return identity{id: id}, errors.Join(fmt.Errorf("keep the id of the instance in %s: %w", path, err), f.Close())
	}
	return identity{id, f}, nil
}

// keptID returns the id that a file has, or draws one and writes it there.
func keptID(f *os.File, service string) (string, error) {
	text, err := io.ReadAll(io.LimitReader(f, document.MaxName+2))
	id := strings.TrimSpace(string(text))
	if err == nil && id != "" && document.CheckName(id) == nil {
		return id, nil
	}
	id = drawID(service)
	if _, err := f.WriteAt([]byte(id+"\n"), 0); err != nil {
		return id, err //nolint:wrapcheck // the caller names the file
	}
	return id, f.Truncate(int64(len(id) + 1)) //nolint:wrapcheck // the caller names the file
}

// drawID returns an id that tells an operator which service it is of.
func drawID(service string) string {
	return service + "-" + strings.ToLower(rand.Text()[:10])
}

func (i identity) release() error {
	if i.file == nil {
		return nil
	}
	return i.file.Close() //nolint:wrapcheck // it names the file
}
