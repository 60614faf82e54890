package browser

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestLook takes pictures of a relay that runs already, for people who work on
// the pages: CO2_LOOK=http://127.0.0.1:2003 go test -run Look ./browser
func TestLook(t *testing.T) {
	url := strings.TrimSuffix(os.Getenv("CO2_LOOK"), "/")
	if url == "" {
		t.Skip("only with CO2_LOOK set to a relay's address")
	}
	p := startChromium(t).open(t)
	satellite := ""
	for _, look := range []struct {
		name          string
		width, height int
		dark, mobile  bool
	}{{"light", 1280, 880, false, false}, {"dark", 1280, 800, true, false}, {"phone", 390, 844, false, true}, {"wall", 2560, 1440, true, false}} {
		p.size(look.width, look.height, look.mobile)
		p.dark(look.dark)
		for _, path := range []string{"/", "/satellites", "/flow", "/methods", "/methods/relay.relay", "/system", satellite} {
			if path == "" {
				continue
			}
			p.goTo(url + path)
			if path == "/satellites" && satellite == "" {
				p.eval(`(document.querySelector("td .state.parked") || document.querySelector("td .state")).closest("tr").querySelector("a").getAttribute("href")`, &satellite)
			}
			if path == "/flow" {
				p.until("something flies", `document.querySelectorAll("#sparks circle").length > 20`)
			}
			if path == "/" {
				time.Sleep(500 * time.Millisecond) // the first live parts
			}
			name := strings.Trim(strings.NewReplacer("/", "-", ".", "-", ":", "-").Replace(path), "-")
			if name == "" {
				name = "overview"
			}
			p.screenshot("look-" + look.name + "-" + name)
			p.quiet(path)
		}
	}
}
