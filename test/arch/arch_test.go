// Package arch checks the structure of the repository: the import ranks that
// ARCHITECTURE.md states, the weight of what users link, and generated code.
package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/holdfast-dev/holdfast/"

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
	GoFiles    []string
}

// TestRanks reads the table of ARCHITECTURE.md and holds every import of every
// package against it: imports point strictly down, and edges between packages
// of one rank stand in the table's last column.
func TestRanks(t *testing.T) {
	rows := readTable(t)
	seen := map[string]bool{}
	for _, p := range list(t) {
		from, ok := rowOf(rows, p.ImportPath)
		if !ok {
			t.Errorf("%s has no row in ARCHITECTURE.md", p.ImportPath)
			continue
		}
		seen[from.path] = true
		for _, imported := range p.Imports {
			to, ok := rowOf(rows, imported)
			if !ok || to.path == from.path {
				continue
			}
			if to.rank >= from.rank && !slices.Contains(from.siblings, to.path) {
				t.Errorf("%s (rank %d) imports %s (rank %d): imports point down, see ARCHITECTURE.md",
					from.path, from.rank, to.path, to.rank)
			}
		}
	}
	for _, row := range rows {
		if !seen[row.path] {
			t.Errorf("ARCHITECTURE.md lists %s, which does not exist", row.path)
		}
	}
}

// TestBytesOnly keeps the mechanisms free of what they carry: of this module they use
// tools of rank 0, and not the contract.
func TestBytesOnly(t *testing.T) {
	rows := readTable(t)
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if name != "internal/consensus" && name != "internal/gossip" {
			continue
		}
		for _, imported := range p.Imports {
			to, ok := rowOf(rows, imported)
			if ok && (to.rank > 0 || to.path == "proto") {
				t.Errorf("%s imports %s: it carries bytes and knows no domain", name, imported)
			}
		}
	}
}

// TestWeight keeps the server out of what operators and services link.
func TestWeight(t *testing.T) {
	heavy := []string{
		"github.com/hashicorp/raft", "github.com/hashicorp/raft-boltdb", "go.etcd.io/bbolt",
		module + "internal/state", module + "internal/consensus", module + "internal/node", module + "internal/api",
		"github.com/prometheus/client_golang",
	}
	light := []string{"cmd/holdfast", "pkg/client"}
	for _, p := range list(t) {
		if !slices.Contains(light, strings.TrimPrefix(p.ImportPath, module)) {
			continue
		}
		for _, dep := range p.Deps {
			for _, h := range heavy {
				if dep == h || strings.HasPrefix(dep, h+"/") {
					t.Errorf("%s links %s", p.ImportPath, dep)
				}
			}
		}
	}
}

type row struct {
	path     string
	rank     int
	siblings []string
}

// readTable finds the rows `| path | rank | what | siblings |` of the document.
func readTable(t *testing.T) []row {
	t.Helper()
	data, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile("(?m)^\\| `([a-z0-9/-]+)` \\| (\\d) \\|[^|]*\\|([^|]*)\\|$")
	var rows []row
	for _, m := range line.FindAllStringSubmatch(string(data), -1) {
		rank, _ := strconv.Atoi(m[2])
		r := row{path: strings.TrimSuffix(m[1], "/"), rank: rank}
		for _, s := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(m[3], -1) {
			r.siblings = append(r.siblings, s[1])
		}
		rows = append(rows, r)
	}
	if len(rows) < 10 {
		t.Fatalf("found only %d rows in the table of ARCHITECTURE.md", len(rows))
	}
	return rows
}

// rowOf returns the row with the longest path that the package lies under.
func rowOf(rows []row, importPath string) (row, bool) {
	path, ok := strings.CutPrefix(importPath, module)
	if !ok {
		return row{}, false
	}
	best, found := row{}, false
	for _, r := range rows {
		if (path == r.path || strings.HasPrefix(path, r.path+"/")) && len(r.path) > len(best.path) {
			best, found = r, true
		}
	}
	return best, found
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps,GoFiles", "./...")
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(out); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("list packages: %v", err)
	}
	return pkgs
}
