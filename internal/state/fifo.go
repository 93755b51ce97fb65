package state

import "slices"

// chunkSize is how many items a chunk of a fifo has. What was dropped is held on
// to until its chunk is, so it is small.
const chunkSize = 16

// fifo is a queue of which every copy is a snapshot, made in O(1). Only the
// newest copy may be changed, and by one goroutine; older copies stay valid, and
// other goroutines may read them meanwhile: a push writes only where no older
// copy looks, and a pop writes nothing at all. The zero value is empty.
type fifo[T any] struct {
	chunks []*[chunkSize]T
	first  int // how many items of chunks[0] are dropped
	n      int
	cut    int // how many dropped chunks the array behind chunks still holds
}

// push appends an item.
func (f *fifo[T]) push(item T) {
	end := f.first + f.n
	if end == len(f.chunks)*chunkSize {
		f.chunks = append(f.chunks, new([chunkSize]T))
	}
	f.chunks[end/chunkSize][end%chunkSize] = item
	f.n++
}

// pop drops the oldest item and returns it; there must be one.
func (f *fifo[T]) pop() T {
	item := f.chunks[0][f.first]
	f.first++
	f.n--
	if f.first < chunkSize {
		return item
	}
	f.first = 0
	f.chunks = f.chunks[1:]
	// The array cannot be cleared under older copies, so it is left to them once
	// an eighth of it is dead. That costs a fraction of a pointer per pop.
	if f.cut++; f.cut > len(f.chunks)/8 {
		f.chunks, f.cut = slices.Clone(f.chunks), 0
	}
	return item
}

// at returns item i; 0 is the oldest.
func (f *fifo[T]) at(i int) T {
	i += f.first
	return f.chunks[i/chunkSize][i%chunkSize]
}

// len returns the number of items.
func (f *fifo[T]) len() int { return f.n }
