package frontend

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/co2relay/co2relay/internal/xmlrpc"
)

// properties are what *.get_properties tells of the relay and its host. They
// are read once, when the frontend is made.
type properties struct {
	kernel          string // its name and release
	operatingSystem string
	softwarePlat    string
	hardwarePlat    string // machine name, as uname -m gives it
	hardware        string
	processor       string
	started         time.Time
}

// readProperties finds out what the host is. Where it does not tell, the Go
// runtime's own names stand.
func readProperties() properties {
	kernel, machine := uname()
	p := properties{
		kernel:          kernel,
		operatingSystem: osRelease("/etc/os-release", "/usr/lib/os-release"),
		softwarePlat:    fmt.Sprintf("%s (%s/%s)", runtime.Version(), runtime.GOOS, runtime.GOARCH),
		hardwarePlat:    machine,
		hardware:        firstLine("/sys/devices/virtual/dmi/id/product_name", "/sys/firmware/devicetree/base/model"),
		processor:       cpuModel("/proc/cpuinfo"),
		started:         time.Now(),
	}
	if p.operatingSystem == "" {
		p.operatingSystem = runtime.GOOS
	}
	if p.processor == "" {
		p.processor = machine
	}
	if p.hardware == "" {
		p.hardware = fmt.Sprintf("%s, %s", machine, count(runtime.NumCPU(), "processor"))
	}
	return p
}

// osRelease gives the PRETTY_NAME of the first file that has one.
func osRelease(paths ...string) string {
	for _, path := range paths {
		for line := range lines(path) {
			if name, found := strings.CutPrefix(line, "PRETTY_NAME="); found {
				return strings.Trim(strings.TrimSpace(name), `"'`)
			}
		}
	}
	return ""
}

// cpuModel gives the processor's name in cpuinfo's format, which differs from
// architecture to architecture.
func cpuModel(path string) string {
	for line := range lines(path) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "model name", "Model", "cpu model", "cpu", "Processor":
			if value = strings.TrimSpace(value); value != "" {
				return value
			}
		}
	}
	return ""
}

func firstLine(paths ...string) string {
	for _, path := range paths {
		for line := range lines(path) {
			if line = strings.Trim(line, " \t\x00"); line != "" {
				return line
			}
		}
	}
	return ""
}

// lines gives the lines of the first 64 KiB of a file, none if it cannot be read.
func lines(path string) func(func(string) bool) {
	return func(yield func(string) bool) {
		file, err := os.Open(path)
		if err != nil {
			return
		}
		defer file.Close()
		for s := bufio.NewScanner(io.LimitReader(file, 64<<10)); s.Scan(); {
			if !yield(s.Text()) {
				return
			}
		}
	}
}

// getProperties answers *.get_properties (protocol page, "Properties").
func (f *Frontend) getProperties(context.Context, *request) (xmlrpc.Value, error) {
	p := &f.props
	text := func(name, value string) xmlrpc.Field {
		return xmlrpc.Field{Name: name, Value: xmlrpc.NewString(value)}
	}
	return xmlrpc.NewStruct(
		text("co2_author", f.cfg.Author),
		text("kernel", p.kernel),
		xmlrpc.Field{Name: "uptime", Value: xmlrpc.NewInt(int64(time.Since(p.started) / time.Second))},
		text("operating_system", p.operatingSystem),
		text("maintainer", f.cfg.Maintainer),
		xmlrpc.Field{Name: "start_time", Value: xmlrpc.NewTime(p.started)},
		text("sw_platform", p.softwarePlat),
		text("hw_platform", p.hardwarePlat),
		text("co2_version", f.cfg.Version),
		text("maintainer_email", f.cfg.MaintainerEmail),
		text("hardware", p.hardware),
		xmlrpc.Field{Name: "plugins", Value: xmlrpc.NewArray()},
		xmlrpc.Field{Name: "server_time", Value: xmlrpc.NewTime(time.Now())},
		text("processor", p.processor),
	), nil
}
