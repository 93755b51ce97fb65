//go:build race

package session

// raceDetector makes crowds smaller, because everything takes ten times as long.
const raceDetector = true
