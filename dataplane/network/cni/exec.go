// Package cni speaks the Container Network Interface for dataplane/network.
//
//	in:   ADD, DEL, CHECK, GC, STATUS, VERSION with a network configuration
//	out:  CNI results
//
// The program cmd/xebec-cni and the in-process Exec for libcni are two doors to
// the same Plugin.
package cni
