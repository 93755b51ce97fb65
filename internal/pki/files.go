package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"
)

// recheck is how often files are looked at, at most.
const recheck = time.Second

// files are an authority, a certificate and its key on disk, loaded again when
// one of them changes. Nothing runs in the background: handshakes look.
type files struct {
	ca, cert, key string
	now           func() time.Time

	mu      sync.Mutex // guards the fields below
	checked time.Time
	seen    [3]os.FileInfo // of the files that good was loaded from
	good    *material
	err     error // of the last attempt to load
}

// material is what the files hold. It is immutable.
type material struct {
	pair  tls.Certificate
	id    Identity
	roots *x509.CertPool
}

// load loads the files for the first time.
func (f *files) load() (*material, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reload()
	return f.good, f.err
}

// current returns the last good material, after looking for a newer one. It must
// follow a load that succeeded.
func (f *files) current() *material {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now().Sub(f.checked) >= recheck {
		f.reload()
	}
	return f.good
}

// failure returns why the files as they are now cannot be used, or nil.
func (f *files) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// reload loads the files if they are not those of the last good material. A
// rotation that is half done fails here and is tried again at the next look.
func (f *files) reload() {
	f.checked = f.now()
	var infos [3]os.FileInfo
	for i, path := range []string{f.ca, f.cert, f.key} {
		// The state before reading: a write in between is seen at the next look.
		info, err := os.Stat(path)
		if err != nil {
			f.err = fmt.Errorf("load TLS files: %w", err)
			return
		}
		infos[i] = info
	}
	if f.good != nil && sameFiles(f.seen, infos) {
		f.err = nil
		return
	}
	m, err := f.read()
	if f.err = err; err == nil {
		f.good, f.seen = m, infos
	}
}

func sameFiles(a, b [3]os.FileInfo) bool {
	for i := range a {
		if !os.SameFile(a[i], b[i]) || a[i].Size() != b[i].Size() || !a[i].ModTime().Equal(b[i].ModTime()) {
			return false
		}
	}
	return true
}

// read reads the files and checks that a peer with the same authority would
// accept the certificate.
func (f *files) read() (*material, error) {
	data, err := os.ReadFile(f.ca)
	if err != nil {
		return nil, fmt.Errorf("load authority: %w", err)
	}
	m := &material{roots: x509.NewCertPool()}
	if !m.roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("load authority %s: it holds no PEM certificate", f.ca)
	}
	if m.pair, err = loadPair(f.cert, f.key); err != nil {
		return nil, err
	}
	if m.id, err = IdentityOf(m.pair.Leaf); err != nil {
		return nil, fmt.Errorf("load certificate %s: %w", f.cert, err)
	}
	chain, err := parseChain(m.pair.Certificate)
	if err != nil {
		return nil, fmt.Errorf("load certificate %s: %w", f.cert, err)
	}
	if err := f.verifyWith(m, chain, "", []Role{m.id.Role}); err != nil {
		return nil, fmt.Errorf("load certificate %s: %w", f.cert, err)
	}
	return m, nil
}

func parseChain(ders [][]byte) ([]*x509.Certificate, error) {
	chain := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		var err error
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return nil, err
		}
	}
	return chain, nil
}
