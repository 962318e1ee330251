// Command xebec is a Kubernetes-compatible cluster with an Istio-compatible
// service mesh in one process.
package main

func main() {}
