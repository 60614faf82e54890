// Package e2e holds tests of the cluster as operators run it: the compose file,
// its images and deploy/roll, on the Docker engine of this machine. `make e2e`
// runs them; they are no unit tests and do nothing without CO2_E2E=1.
package e2e
