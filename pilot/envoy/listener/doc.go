// Package listener makes Envoy listeners: what a sidecar does with a connection.
//
//	in:   HTTPInput (a port on which requests are routed by host), TCPInput (addresses
//	      whose connections go to one service), Settings (virtualOutbound), InboundInput
//	      (the application's ports and who may call them)
//	out:  listener.v3.Listener, under Istio's names
//
// Interception delivers every outgoing connection to virtualOutbound, which hands it
// to the listener of its original destination, and every incoming one to
// virtualInbound. Only those two are bound; the others are tables.
//
// Routes are not in here: a change of routes never touches a listener, so it never
// drains a connection.
package listener
