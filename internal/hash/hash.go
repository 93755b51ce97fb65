// Package hash spreads: texts and numbers in, numbers out whose bits all depend on every
// bit of what came in, the same in every process and on every machine. It does not resist:
// whoever can choose what comes in can find two that come out alike.
package hash

// Start is the hash of nothing, for Add.
const Start uint64 = 14695981039346656037

// Add adds a text to a hash, by FNV-1a: Add(Add(h, "a"), "b") is Add(h, "ab"). Its bits
// are spread by Mix only.
func Add(h uint64, text string) uint64 {
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * 1099511628211
	}
	return h
}

// Mix spreads every bit over all others, and gives no number twice: the finalizer of
// SplitMix64 (Steele, Lea, Flood 2014; constants by Stafford). Mix(0) is 0.
func Mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// Nth is the n-th number of SplitMix64 from seed 0: neighbours in, independent numbers out.
func Nth(n uint64) uint64 { return Mix(n * 0x9e3779b97f4a7c15) }
