package fabric_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
)

// roleEnv makes this binary play a part for a test: see roles.
const roleEnv = "FABRIC_TEST_ROLE"

func TestMain(m *testing.M) {
	role := os.Getenv(roleEnv)
	inside, exit, err := fabric.Enter(os.Args[1:])
	switch {
	case role != "" && inside:
		os.Exit(roles[role]())
	case err != nil && role == "":
		fmt.Fprintln(os.Stderr, "tests of the kernel driver are skipped:", err)
		os.Exit(m.Run())
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case !inside:
		os.Exit(exit)
	}
	os.Exit(m.Run())
}
