// Package dns answers for the cluster's names as the Kubernetes DNS
// specification 1.1 says, and forwards all else.
//
//	in:   Services and the endpoints of headless ones, whole or by updates
//	out:  answers over UDP and TCP
//
// A query sees the table as it is between two updates, never within one. The
// server runs in a program of its own (cmd/xebec-dns), so that names resolve
// while xebec is down: Serve is that program, Process starts, adopts and feeds it.
//
// The specification: https://github.com/kubernetes/dns/blob/master/docs/specification.md
package dns

const (
	// ttl of answers for cluster names, in seconds.
	ttl = 5
	// DefaultDomain is the zone of the cluster.
	DefaultDomain = "cluster.local"
	// schema is the version of the specification, answered at dns-version.<zone>.
	schema = "1.1.0"
)
