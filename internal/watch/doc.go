// Package watch tells subscribers what changed in their namespace.
//
// It is level-triggered: a subscriber has a cursor and no queue. When something
// has changed it is woken, compares its cursor with the newest view, and gets
// the difference, coalesced. A slow subscriber just finds a larger difference;
// it costs nobody else anything, and the memory of a subscriber is constant.
package watch
