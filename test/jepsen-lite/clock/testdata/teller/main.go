// Command teller tells the time whenever it is asked, and how long the question
// before was ago.
package main

import (
	"bufio"
	"fmt"
	"os"
	"time"
)

func main() {
	before := time.Now()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		now := time.Now()
		fmt.Println(now.UnixNano(), now.Sub(before).Nanoseconds())
		before = now
	}
}
