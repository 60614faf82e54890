package app

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestTheAdminPortIsNotReadByAForeignNameOfLocalhost(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(ownHostOnly(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") })))
	defer srv.Close()
	for host, want := range map[string]int{"": 200, "localhost:2004": 200, "evil.example:2004": 403} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			req.Host = host
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("by the name %q: got %d, want %d", host, resp.StatusCode, want)
		}
	}
}
