package app

import "runtime/debug"

// version is stamped by the build: -ldflags "-X .../internal/app.version=...".
var version string

// Version is the stamped version, else the module's, else "dev" with the
// commit if the build knows it.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "dev-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return "dev"
}
