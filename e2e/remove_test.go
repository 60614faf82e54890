package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// kinds are what a project leaves behind, and how it is listed and removed.
var kinds = [][2]string{{"ps -aq", "rm -f -v"}, {"volume ls -q", "volume rm -f"}, {"network ls -q", "network rm"}}

// imagePrefix begins the names of the files under loop devices.
const imagePrefix = project + "-"

// netns is there while a network namespace of the project's name is.
const netns = "/run/netns/" + project

func namespaced() bool {
	_, err := os.Stat(netns)
	return err == nil
}

// loops are the loop devices on a file of these tests, also of a run that was killed.
// The kernel shows those of other containers, too, whose files are not here.
func loops() (devices []string) {
	found, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		file, removed := strings.CutSuffix(strings.TrimSpace(string(text)), " (deleted)")
		if name := filepath.Base(file); !strings.HasPrefix(name, imagePrefix) || !strings.HasSuffix(name, ".img") {
			continue
		}
		if _, err := os.Stat(file); removed || err == nil {
			devices = append(devices, "/dev/"+strings.Split(path, "/")[3])
		}
	}
	return devices
}

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
	if namespaced() {
		_ = exec.Command("ip", "netns", "del", project).Run() // takes its end of the wire along
	}
	for _, device := range loops() {
		_ = exec.Command("losetup", "-d", device).Run()
	}
}

// clean removes everything, again for 30 s at most: an engine may take a moment for
// what it was told to end. It names what is left.
func clean() (left string) {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Second) {
		removeAll()
		if left = leftovers(); left == "" || time.Now().After(deadline) {
			return left
		}
	}
}

// leftovers names what removeAll could not remove.
func leftovers() string {
	var left []string
	for _, kind := range kinds {
		for _, id := range labelled(kind[0]) {
			left = append(left, strings.Fields(kind[0])[0]+" "+id)
		}
	}
	left = append(left, loops()...)
	if namespaced() {
		left = append(left, "network namespace "+project)
	}
	return strings.Join(left, ", ")
}
