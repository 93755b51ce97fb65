// Package facade serves flags to every client that is not Holdfast's own: flagd
// providers, which fetch definitions (flagd.sync.v1) or have flags evaluated
// (flagd.evaluation.v1 and v2), and clients of OFREP.
//
// The same services answer on two ports. On the gRPC port of package api they are
// called as any other service, with certificates. On a port of their own, beside
// OFREP, they speak gRPC, gRPC-Web and Connect, and let in browsers: without
// certificates, with a token if one is set.
//
// Everything comes from this server's own state, so that no answer depends on a
// leader or a quorum. A namespace is compiled once and kept up with the state; all
// requests share it. What changed is worked out, and encoded, once for all streams
// that ask for the same.
package facade
