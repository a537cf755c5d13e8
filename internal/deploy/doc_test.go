// Package deploy_test reads what lies in deploy by the code of the tools that will read it: kustomize, Kubernetes' own
// types and its pod security standard, and Compose.
//
// It is a module of its own, because these are many times the proxy's own dependencies, and nothing of ours is built
// from them. What deploy says about the proxy itself (settings, ports, paths, times) is compared with it in
// cmd/freeagent-proxy.
package deploy_test

// deploy is the folder that is read, seen from this one.
const deploy = "../../deploy"
