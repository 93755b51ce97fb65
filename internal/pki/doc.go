// Package pki makes and checks the certificates by which the processes of a
// cluster know each other: one authority, and certificates whose role says what
// their holder may be. It uses the standard library alone.
//
// The role stands in the certificate as the URI holdfast://<role>/<name>. A peer
// is trusted because the authority says that it is a server (or an operator, or
// an instance), so a stolen certificate of an instance is of no use to pose as a
// server. Its address is not what makes it trusted.
package pki
