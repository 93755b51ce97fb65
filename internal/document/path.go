package document

import "strconv"

// Path leads to a value inside a JSON document, such as "levels[1].name". The
// zero value is the document itself.
type Path string

// Key returns the path of a member of the object at p. A key that is not a plain
// word is quoted: variants["a b"].
func (p Path) Key(key string) Path {
	switch {
	case !plainWord(key):
		return p + Path("["+strconv.Quote(key)+"]")
	case p == "":
		return Path(key)
	default:
		return p + "." + Path(key)
	}
}

// Index returns the path of an element of the array at p.
func (p Path) Index(i int) Path {
	return p + Path("["+strconv.Itoa(i)+"]")
}

func plainWord(s string) bool {
	for i := range len(s) {
		switch b := s[i]; {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		case b == '_', b == '-', b == '$':
		default:
			return false
		}
	}
	return s != ""
}
