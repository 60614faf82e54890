package e2e

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// relayImage is the image under test; again is the same, built once more.
const (
	relayImage = "co2relay:e2e"
	again      = "co2relay:e2e-again"
)

// makeImages builds the relay's image, on stand-ins where no registry is reached.
func makeImages() error {
	start := time.Now()
	made := exec.Command(".ci/images")
	made.Dir, made.Stderr = "..", os.Stderr
	out, err := made.Output()
	if err != nil {
		return fmt.Errorf("run .ci/images: %w", err)
	}
	images = append(strings.Split(strings.TrimSpace(string(out)), "\n"), "COMPOSE_PROJECT_NAME="+project, "CO2_SUBNET=10.203.8.0/24")
	if err := buildImage(relayImage); err != nil {
		return err
	}
	images = append(images, "CO2RELAY_IMAGE="+relayImage)
	table.add(note(fmt.Sprintf("images made in %s", time.Since(start).Round(time.Second))))
	return sameAgain()
}

// buildImage builds twice at most: it downloads modules, and one failure of the
// network is not the tree's.
func buildImage(name string, flags ...string) error {
	command := append(slices.Clone(composeCommand), append(append([]string{"build"}, flags...), "setup")...)
	for try := 1; ; try++ {
		build := exec.Command(command[0], command[1:]...)
		build.Dir, build.Env = "..", append(append(os.Environ(), images...), "CO2RELAY_IMAGE="+name)
		out, err := build.CombinedOutput()
		if err == nil {
			return nil
		}
		err = fmt.Errorf("build the image: %w\n%s", err, out)
		if try == 2 {
			return err
		}
		fmt.Println("e2e: once more:", err)
		time.Sleep(15 * time.Second)
	}
}

// sameAgain builds the image once more from nothing, and wants the same binary.
func sameAgain() error {
	start, before := time.Now(), dangling()
	defer func() { // the second build's layers are of no use to anybody
		_ = exec.Command("docker", "rmi", "-f", again).Run()
		for _, id := range dangling() {
			if !slices.Contains(before, id) {
				_ = exec.Command("docker", "rmi", id).Run()
			}
		}
	}()
	if err := buildImage(again, "--no-cache"); err != nil {
		return err
	}
	want, err := digest(relayImage)
	if err != nil {
		return err
	}
	got, err := digest(again)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("the same tree, built twice, gives the binaries %s and %s: want the same", want, got)
	}
	table.add(note(fmt.Sprintf("built once more from nothing in %s: the same binary, %.16s", time.Since(start).Round(time.Second), got)))
	return nil
}

func dangling() []string {
	out, _ := exec.Command("docker", "images", "-q", "--filter", "dangling=true").Output()
	return strings.Fields(string(out))
}

// digest is that of an image's binary.
func digest(image string) (string, error) {
	dir, err := os.MkdirTemp("", "co2e2e")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "co2relay")
	if err := copyBinary(image, path); err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	_, err = io.Copy(hash, f)
	return fmt.Sprintf("%x", hash.Sum(nil)), err
}

// copyBinary takes the binary out of an image.
func copyBinary(image, path string) error {
	id, err := exec.Command("docker", "create", "--label", "com.docker.compose.project="+project, image).Output()
	if err != nil {
		return fmt.Errorf("create a container of %s: %w", image, err)
	}
	container := strings.TrimSpace(string(id))
	defer exec.Command("docker", "rm", "-f", container).Run()
	if out, err := exec.Command("docker", "cp", container+":/co2relay", path).CombinedOutput(); err != nil {
		return fmt.Errorf("copy the binary of %s: %w: %s", image, err, out)
	}
	return nil
}
