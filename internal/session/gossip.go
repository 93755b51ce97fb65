package session

import (
	"context"
	"errors"

	"google.golang.org/grpc"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// Gossip is how an instance takes part in gossip over its session. All functions are
// required, but for Head. Like the Handler they must not wait for anything.
type Gossip struct {
	// State tells how the instance takes part now: in each hello, and again after
	// Session.SendGossip. It is called by several goroutines.
	State func() *holdfastv1.GossipState
	// Settings takes what a server grants, in turn with the Handler, and again when that
	// server speaks again after it had fallen silent.
	Settings func(*holdfastv1.GossipSettings)
	// Evidence takes records of other instances, in turn with the Handler.
	Evidence func(records [][]byte)
	// Own returns the instance's own record as it is to travel now; nil for none. It is
	// called once a server has granted "relayed", and again after Session.SendEvidence.
	Own func() []byte
	// Head takes signed heads and timestamps, either of which may be nil, after the
	// event that they came with was installed, in turn with the Handler.
	Head func(head, timestamp *holdfastv1.SignedHead)
}

// relayed is the mode in which records travel over the session.
const relayed = "relayed"

// SendGossip tells the server what Gossip.State says now.
func (s *Session) SendGossip() { poke(s.gossips) }

// SendEvidence hands the server what Gossip.Own returns, where it has granted to.
// Several calls may be answered by one record, the newest.
func (s *Session) SendEvidence() { poke(s.records) }

// poke leaves a token where there is none.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// gossip takes what a message of the server says of gossip.
func (st *stream) gossip(m *holdfastv1.ConnectResponse) {
	g := st.session.config.Gossip
	if g == nil {
		return
	}
	st.grant(m.GetGossip())
	if all := m.GetEvidence(); len(all) > 0 {
		records := make([][]byte, 0, len(all))
		for _, e := range all {
			records = append(records, e.GetRecord())
		}
		g.Evidence(records)
	}
}

// grant takes what the server grants; nil if it says nothing of that.
func (st *stream) grant(settings *holdfastv1.GossipSettings) {
	if g := st.session.config.Gossip; g != nil && settings != nil {
		st.granting = settings
		g.Settings(settings)
		st.granted.Store(settings.GetMode() == relayed)
		st.session.SendEvidence()
	}
}

// send sends what the instance obeys, how it takes part in gossip, and its record,
// whenever there is something new, until the stream ends, or ctx does: then it hands in the
// last record, and tells that nothing follows. It runs beside the receiver, so a server that
// does not read keeps nobody from obeying. Where another stream is followed instead, it
// leaves what is new to that one.
func (st *stream) send(ctx context.Context, stream grpc.BidiStreamingClient[holdfastv1.ConnectRequest, holdfastv1.ConnectResponse]) {
	s := st.session
	next := s.ackRequest()
	for {
		if next != nil && stream.Send(next) != nil {
			return // Recv tells why
		}
		var news chan struct{}
		var request func() *holdfastv1.ConnectRequest
		select {
		case <-s.acks:
			news, request = s.acks, s.ackRequest
		case <-s.gossips:
			news, request = s.gossips, s.gossipRequest
		case <-s.records:
			news, request = s.records, st.evidenceRequest
		case <-stream.Context().Done():
			return
		case <-ctx.Done():
		}
		if ctx.Err() == nil {
			next = request()
			continue
		}
		if news != nil {
			poke(news)
		}
		if !errors.Is(context.Cause(ctx), errSilent) {
			st.leave(stream)
		}
		return
	}
}

// leave hands in the last record, and tells that nothing follows.
func (st *stream) leave(stream grpc.BidiStreamingClient[holdfastv1.ConnectRequest, holdfastv1.ConnectResponse]) {
	select {
	case <-st.session.records:
		if last := st.evidenceRequest(); last != nil {
			_ = stream.Send(last)
		}
	default:
	}
	_ = stream.CloseSend()
}

func (s *Session) ackRequest() *holdfastv1.ConnectRequest {
	ack := s.ack()
	if ack == nil {
		return nil
	}
	return &holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Ack{Ack: ack}}
}

func (s *Session) gossipRequest() *holdfastv1.ConnectRequest {
	state := s.gossipState()
	if state == nil {
		return nil
	}
	return &holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Gossip{Gossip: state}}
}

// gossipState tells how the instance takes part; nil where it does not.
func (s *Session) gossipState() (state *holdfastv1.GossipState) {
	if g := s.config.Gossip; g != nil {
		s.contained(func() { state = g.State() })
	}
	return state
}

func (st *stream) evidenceRequest() *holdfastv1.ConnectRequest {
	s := st.session
	if s.config.Gossip == nil || !st.granted.Load() {
		return nil
	}
	var record []byte
	s.contained(func() { record = s.config.Gossip.Own() })
	if record == nil {
		return nil
	}
	return &holdfastv1.ConnectRequest{Message: &holdfastv1.ConnectRequest_Evidence{Evidence: &holdfastv1.Evidence{Record: record}}}
}
