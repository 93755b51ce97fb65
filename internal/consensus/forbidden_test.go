package consensus

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// Some of raft's methods do what this package promises not to do, and others may
// be called from one place only, where the promise is kept.
func TestForbiddenCallsOfRaft(t *testing.T) {
	t.Parallel()
	allowed := map[string]string{
		"Restore":                        "",            // lets the leader commit ahead of its followers
		"VerifyLeader":                   "",            // takes answers to earlier questions
		"ReloadConfig":                   "",            // takes zeros for values
		"LeadershipTransfer":             "",            // does not ask whether the other one is alive
		"LeadershipTransferToServer":     "transfer.go", // on shutdown or by command only
		"Apply":                          "node.go",     // through the queue
		"AddVoter":                       "members.go",  // once caught up
		"RestoreCommittedLogs":           "",            // loses the configuration
		"CommitTrackingLogStore":         "",            // would allow that
		"NoSnapshotRestoreOnStart":       "config.go",   // the fallback is checked here
		"BatchApplyCh":                   "config.go",   //
		"ShutdownOnRemove":               "config.go",   // the node says so itself
		"PreVoteDisabled":                "",            //
		"NewNetworkTransportWithConfig":  "transport.go",
		"NewTCPTransport":                "",
		"NewTCPTransportWithLogger":      "",
		"NewFileSnapshotStoreWithLogger": "snapshots.go",
	}
	files, err := filepath.Glob("*.go")
	must(t, err)
	seen := make(map[string]bool)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		must(t, err)
		ast.Inspect(parsed, func(node ast.Node) bool {
			selector, ok := node.(*ast.SelectorExpr)
			if !ok || !ofRaft(selector.X) {
				return true
			}
			name := selector.Sel.Name
			if place, listed := allowed[name]; listed {
				if seen[name] = true; place != file {
					t.Errorf("%s uses raft's %s, allowed in %q only", file, name, place)
				}
			}
			return true
		})
	}
	for name, place := range allowed {
		if place != "" && !seen[name] {
			t.Errorf("raft's %s is not used in %s: this list is out of date", name, place)
		}
	}
}

// ofRaft tells whether an expression is the library, its node or its
// configuration, by the names that this package gives them.
func ofRaft(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name == "raft" || x.Name == "rc"
	case *ast.SelectorExpr:
		return x.Sel.Name == "raft"
	}
	return false
}
