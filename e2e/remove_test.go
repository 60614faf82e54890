package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// kinds are what a project leaves behind, and how it is listed and removed.
var kinds = [][2]string{{"ps -aq", "rm -f -v"}, {"volume ls -q", "volume rm -f"}, {"network ls -q", "network rm"}}

var (
	loops      []string // loop devices in use
	namespaced bool     // there may be a network namespace of the project's name
)

func labelled(list string) []string {
	out, _ := exec.Command("docker", append(strings.Fields(list), "--filter", "label=com.docker.compose.project="+project)...).Output()
	return strings.Fields(string(out))
}

// removeAll removes what carries the project's label, and what it lay on.
func removeAll() {
	for _, kind := range kinds {
		if ids := labelled(kind[0]); len(ids) > 0 {
			_ = exec.Command("docker", append(strings.Fields(kind[1]), ids...)...).Run()
		}
	}
	if namespaced {
		_ = exec.Command("ip", "netns", "del", project).Run() // takes its end of the wire along
	}
	for _, device := range loops {
		if inUse(device) {
			_ = exec.Command("losetup", "-d", device).Run()
		}
	}
}

func inUse(device string) bool {
	_, err := os.Stat(filepath.Join("/sys/block", filepath.Base(device), "loop/backing_file"))
	return err == nil
}

// leftovers names what removeAll could not remove.
func leftovers() string {
	var left []string
	for _, kind := range kinds {
		for _, id := range labelled(kind[0]) {
			left = append(left, strings.Fields(kind[0])[0]+" "+id)
		}
	}
	for _, device := range loops {
		if inUse(device) {
			left = append(left, device)
		}
	}
	if _, err := os.Stat("/run/netns/" + project); err == nil {
		left = append(left, "network namespace "+project)
	}
	return strings.Join(left, ", ")
}
