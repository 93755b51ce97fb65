package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-dev/holdfast/internal/pki"
)

// pairView is a certificate that was made, in JSON and YAML.
type pairView struct {
	head
	Identity string    `json:"identity"`
	Cert     string    `json:"cert"`
	Key      string    `json:"key"`
	Hosts    []string  `json:"hosts,omitempty"`
	NotAfter time.Time `json:"not_after"`
}

// tlsCommand is everything about certificates.
func (a *app) tlsCommand() *cobra.Command {
	return a.group("tls", "Make the certificates of a cluster",
		`holdfast tls ca create
holdfast tls cert create s1 --role server --host 10.0.0.1 --host s1.example.com
holdfast tls cert create alice --role operator
holdfast tls cert create checkout --role instance`,
		a.group("ca", "The certificate authority", "holdfast tls ca create", a.caCreate()),
		a.group("cert", "Certificates of servers, operators and instances", "holdfast tls cert create alice --role operator", a.certCreate()))
}

func (a *app) caCreate() *cobra.Command {
	var dir, name string
	var days int
	cmd := &cobra.Command{
		Use: "create", Short: "Create a certificate authority: ca.pem and ca.key", Args: exactArgs(),
		Long:    "Create a certificate authority: ca.pem, which everybody gets, and ca.key, which signs and must\nstay secret. Files are never overwritten.",
		Example: "holdfast tls ca create\nholdfast tls ca create --dir /etc/holdfast --days 1825",
		RunE: func(*cobra.Command, []string) error {
			pair, err := pki.CreateCA(pki.Options{Name: name, Days: days})
			if err != nil {
				return usage("%v", err)
			}
			return a.savePair(pair, "authority "+pair.Cert.Subject.CommonName, dir, "ca", nil)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "`directory` for the files")
	cmd.Flags().StringVar(&name, "name", "", "`name` of the authority (default holdfast)")
	cmd.Flags().IntVar(&days, "days", 0, fmt.Sprintf("how many `days` it is valid (default %d)", pki.CADays))
	return cmd
}

func (a *app) certCreate() *cobra.Command {
	var dir, role, ca, caKey string
	var hosts []string
	var days int
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Create a certificate of a server, an operator or an instance",
		Long: `Create a certificate, NAME.pem, with its key, NAME.key. The role says what its holder may do:
server    be a server of the cluster; needs --host for every name and address at which it is reached
operator  change things: the role for people and for this program
instance  read and watch: the role for services
Files are never overwritten.`,
		Example: `holdfast tls cert create s1 --role server --host 10.0.0.1 --host s1.example.com
holdfast tls cert create alice --role operator --days 90`,
		Args: exactArgs("NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := pki.ParseRole(role)
			if err != nil {
				f := usage("--role: %v", err)
				if role == "" {
					f = usage("--role is missing: it is one of server, operator, instance")
				} else if hint := didYouMean(role, []string{"server", "operator", "instance"}); hint != "" {
					f.addHint("%s", hint)
				}
				return f
			}
			authority, err := pki.Load(cmp.Or(ca, filepath.Join(dir, "ca.pem")), cmp.Or(caKey, filepath.Join(dir, "ca.key")))
			if err != nil {
				f := usage("the authority cannot be used: %v", err)
				if errors.Is(err, fs.ErrNotExist) {
					f.addHint("make it with `holdfast tls ca create`, or name its files with --ca and --ca-key")
				}
				return f
			}
			if r == pki.RoleServer {
				if hosts = slices.DeleteFunc(hosts, func(h string) bool { return h == "" }); len(hosts) == 0 {
					return usage("--host is missing: a server's certificate names every address at which it is reached")
				}
			}
			pair, err := pki.CreateCert(authority, pki.Options{Role: r, Name: args[0], Hosts: hosts, Days: days})
			if err != nil {
				return usage("%v", err)
			}
			return a.savePair(pair, string(r)+"/"+args[0], dir, args[0], hosts)
		},
	}
	cmd.Flags().StringVar(&role, "role", "", "`role` of the holder: server, operator or instance")
	cmd.Flags().StringSliceVar(&hosts, "host", nil, "`name` or address at which a server is reached; may be repeated")
	cmd.Flags().StringVar(&dir, "dir", ".", "`directory` for the files")
	cmd.Flags().StringVar(&ca, "ca", "", "`file` with the authority's certificate (default ca.pem in --dir)")
	cmd.Flags().StringVar(&caKey, "ca-key", "", "`file` with the authority's key (default ca.key in --dir)")
	cmd.Flags().IntVar(&days, "days", 0, fmt.Sprintf("how many `days` it is valid (default %d, at most as long as the authority)", pki.CertDays))
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"server", "operator", "instance"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// savePair writes a certificate with its key and says where.
func (a *app) savePair(pair *pki.Pair, identity, dir, base string, hosts []string) error {
	if strings.ContainsAny(base, `/\`) || base == "." || base == ".." {
		return usage("NAME %q is also a file name; it cannot hold a slash", base)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fileFailure(dir, err)
	}
	cert, key := filepath.Join(dir, base+".pem"), filepath.Join(dir, base+".key")
	if err := pair.Save(cert, key); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fail(exitRefused, "%s or %s exists; certificates are never overwritten", cert, key).
				hint("move it away, or choose another --dir")
		}
		return err
	}
	if a.format != tableFormat {
		return a.emit(pairView{newHead("Certificate"), identity, cert, key, hosts, pair.Cert.NotAfter})
	}
	if err := a.say("%s: %s, %s (valid until %s)", identity, cert, key, pair.Cert.NotAfter.Format("2006-01-02")); err != nil {
		return err
	}
	if base == "ca" {
		a.notice("%s signs certificates of every role: keep it secret, best offline", key)
	}
	return nil
}
