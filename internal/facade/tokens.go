package facade

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
)

// ReadTokens reads the tokens of a file, one a line; empty lines and lines that
// begin with # do not count.
func ReadTokens(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	var tokens []string
	lines := bufio.NewScanner(bytes.NewReader(data))
	for number := 1; lines.Scan(); number++ {
		token := strings.TrimSpace(lines.Text())
		switch {
		case token == "" || strings.HasPrefix(token, "#"):
			continue
		// The line is a secret and is not shown.
		case len(token) < minTokenBytes:
			return nil, fmt.Errorf("read tokens: %s:%d: has %d bytes; a token has at least %d, such as those of `openssl rand -hex 32`",
				path, number, len(token), minTokenBytes)
		case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
			return nil, fmt.Errorf("read tokens: %s:%d: has white space or other characters that a header cannot hold", path, number)
		}
		tokens = append(tokens, token)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	if len(tokens) == 0 || len(tokens) > maxTokens {
		return nil, fmt.Errorf("read tokens: %s has %d tokens; must be 1 to %d", path, len(tokens), maxTokens)
	}
	return tokens, nil
}

// CheckOrigin tells what is wrong with an origin that pages come from.
func CheckOrigin(origin string) error {
	if origin == "*" {
		return nil
	}
	u, err := url.Parse(origin)
	if err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != origin {
		return errors.New("must be * or scheme://host[:port], such as https://shop.example.com")
	}
	return nil
}
