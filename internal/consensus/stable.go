package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// The keys that raft uses, and the one under which a vote is stored.
const (
	keyTerm          = "CurrentTerm"
	keyVoteTerm      = "LastVoteTerm"
	keyVoteCandidate = "LastVoteCand"
	keyVote          = "Vote"
)

// errNotFound has the text that raft compares with.
var errNotFound = errors.New("not found")

func isNotFound(err error) bool { return err != nil && err.Error() == errNotFound.Error() }

// vote keeps the term of a vote until its candidate follows. raft writes the two
// one after the other; a crash in between would leave the old candidate with the
// new term, and the node would grant its vote of that term to that candidate
// unseen, maybe after it had been given to another.
type vote struct {
	term    uint64
	pending bool
}

// SetUint64 writes a number; the term of a vote waits for its candidate.
func (s *store) SetUint64(key []byte, value uint64) error {
	if string(key) == keyVoteTerm {
		s.vote = vote{term: value, pending: true}
		return nil
	}
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// Set writes a value; the candidate of a vote takes its term along.
func (s *store) Set(key, value []byte) error {
	name := string(key)
	if name == keyVoteCandidate {
		if !s.vote.pending {
			return s.down(errors.New("write vote: a candidate without a term"))
		}
		value = append(binary.BigEndian.AppendUint64(nil, s.vote.term), value...)
		name = keyVote
		s.vote = vote{}
	}
	return s.write("write "+name, "consensus.set", func() error {
		return s.inner.Set([]byte(name), sealValue(name, value))
	})
}

// Get reads a value.
func (s *store) Get(key []byte) ([]byte, error) {
	if string(key) == keyVoteCandidate {
		term, candidate, err := s.lastVote()
		if err == nil && term == 0 {
			err = errNotFound
		}
		return candidate, err
	}
	var value []byte
	err := s.read("read "+string(key), func() error {
		sealed, err := s.inner.Get(key)
		if err != nil {
			return err
		}
		value, err = openValue(string(key), sealed)
		return err
	})
	return value, err
}

// GetUint64 reads a number.
func (s *store) GetUint64(key []byte) (uint64, error) {
	if string(key) == keyVoteTerm {
		term, _, err := s.lastVote()
		if err == nil && term == 0 {
			err = errNotFound
		}
		return term, err
	}
	value, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	number, err := uint64Value(value)
	if err != nil {
		return 0, s.down(s.describe("read "+string(key), fmt.Errorf("%w: %w", ErrCorrupt, err)))
	}
	return number, nil
}

// verify checks what raft takes on trust when it starts. Absence means something
// to raft: without a term it begins at zero, without a vote it votes again. So
// both are there from the first start on, and must be there whenever anything is;
// used tells that this is not the first start.
func (s *store) verify(used bool) error {
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	term, termErr := s.GetUint64([]byte(keyTerm))
	if termErr != nil && !isNotFound(termErr) {
		return termErr
	}
	voted, _, voteErr := s.lastVote()
	if voteErr != nil && !isNotFound(voteErr) {
		return voteErr
	}
	switch {
	case termErr != nil && voteErr != nil && last == 0 && !used:
		s.vote = vote{pending: true}
		return s.Set([]byte(keyVoteCandidate), nil)
	case voteErr != nil:
		return s.down(s.describe("read vote", fmt.Errorf("%w: it is missing", ErrCorrupt)))
	case termErr != nil && (last > 0 || voted > 0):
		return s.down(s.describe("read term", fmt.Errorf("%w: it is missing", ErrCorrupt)))
	case last == 0:
		return nil
	}
	var newest raft.Log
	if err := s.GetLog(last, &newest); err != nil {
		return err
	}
	if newest.Term > term || voted > term {
		return s.down(s.describe("read term", fmt.Errorf("%w: it is %d, less than that of the last entry, %d, or vote, %d", ErrCorrupt, term, newest.Term, voted)))
	}
	return nil
}

// covers checks that the term is not older than that of the restored snapshot:
// without its log file a node would vote a second time.
func (s *store) covers(restored mark) error {
	term, err := s.GetUint64([]byte(keyTerm))
	if err != nil && !isNotFound(err) {
		return err
	}
	if term < restored.term {
		return s.down(s.describe("read term", fmt.Errorf("%w: it is %d, less than that of the snapshot, %d: the file is not the one that belongs to the snapshots",
			ErrCorrupt, term, restored.term)))
	}
	return nil
}

// lastVote reads the last complete vote; its term is 0 before the first one.
func (s *store) lastVote() (term uint64, candidate []byte, err error) {
	value, err := s.Get([]byte(keyVote))
	if err != nil {
		return 0, nil, err
	}
	if len(value) < 8 {
		return 0, nil, s.down(s.describe("read vote", fmt.Errorf("%w: too short", ErrCorrupt)))
	}
	return binary.BigEndian.Uint64(value), value[8:], nil
}
