// Package dns answers for the cluster's names as the Kubernetes DNS
// specification 1.1 says, and forwards all else.
//
//	in:   Services and the endpoints of headless ones, whole or by updates
//	out:  answers over UDP and TCP
//
// What is served is an immutable snapshot that is swapped whole; a query reads
// one snapshot from begin to end. The server runs in a program of its own
// (cmd/xebec-dns), so that names resolve while xebec is down.
package dns
