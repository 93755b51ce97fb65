//go:build race

package relay

// raceDetector makes crowds smaller, because everything takes ten times as long.
const raceDetector = true
