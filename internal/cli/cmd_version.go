package cli

import (
	"context"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-dev/holdfast/internal/version"
)

// versionTime is how long version waits for a server.
const versionTime = 2 * time.Second

// versionView is the answer in JSON and YAML.
type versionView struct {
	head
	Client versionOf  `json:"client"`
	Server *versionOf `json:"server"`
}

// versionOf describes one program.
type versionOf struct {
	Version  string `json:"version"`
	Go       string `json:"go,omitempty"`
	Platform string `json:"platform,omitempty"`
	ServerID string `json:"server_id,omitempty"`
}

// versionCommand is `version`.
func (a *app) versionCommand() *cobra.Command {
	var clientOnly bool
	cmd := &cobra.Command{
		Use: "version", Short: "Print the versions of this program and of the server", Args: exactArgs(),
		Long:    "Print the versions of this program and of the server. A server that does not answer is no error.",
		Example: "holdfast version\nholdfast version --client",
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versionView{head: newHead("Version"), Client: versionOf{
				Version: version.Version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
			}}
			var trouble error
			if !clientOnly {
				v.Server, trouble = a.serverVersion(cmd.Context())
			}
			if a.format != tableFormat {
				return a.emit(v)
			}
			if err := a.say("client %s (%s, %s)", v.Client.Version, v.Client.Go, v.Client.Platform); err != nil || clientOnly {
				return err
			}
			if v.Server == nil {
				a.warn("server unknown: %v", trouble)
				return nil
			}
			return a.say("server %s (%s)", v.Server.Version, v.Server.ServerID)
		},
	}
	cmd.Flags().BoolVar(&clientOnly, "client", false, "ask no server")
	return cmd
}

// serverVersion asks a server for its version.
func (a *app) serverVersion(ctx context.Context) (*versionOf, error) {
	if a.opt.timeout == "" {
		a.timeout = versionTime
	}
	quiet := a.opt.quiet
	a.opt.quiet = true
	defer func() { a.opt.quiet = quiet }()
	if err := a.connect(); err != nil {
		return nil, err
	}
	s, err := a.status(ctx)
	if err != nil {
		return nil, err
	}
	return &versionOf{Version: s.GetVersion(), ServerID: s.GetHeader().GetServerId()}, nil
}
