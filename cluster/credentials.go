package cluster

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/nats-io/nats-server/v2/server"
)

// credentials let NATS clients in over TCP. Whoever comes through the process or the Unix socket (mode 0600) needs none.
type credentials struct {
	User     string `json:"user"`
	Password string `json:"password"`
	path     string
}

const credentialsFile = "nats-credentials.json"

// loadCredentials reads Dir/nats-credentials.json, and makes it (mode 0600) with a random password if it is absent.
func loadCredentials(dir string) (*credentials, error) {
	c := &credentials{path: filepath.Join(dir, credentialsFile)}
	b, err := os.ReadFile(c.path)
	if errors.Is(err, os.ErrNotExist) {
		c.User, c.Password = "co2relay", rand.Text()
		b, _ = json.Marshal(c)
		if err := os.WriteFile(c.path, append(b, '\n'), 0o600); err != nil {
			return nil, fmt.Errorf("write credentials %s: %w", c.path, err)
		}
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(b, c)
	}
	if err == nil && (c.User == "" || c.Password == "") {
		err = errors.New("no user or no password in it: delete it, a new one is made")
	}
	if err != nil {
		return nil, fmt.Errorf("read credentials %s: %w", c.path, err)
	}
	return c, nil
}

// Check is nats-server's question whether a client may come in.
func (c *credentials) Check(client server.ClientAuthentication) bool {
	if _, tcp := client.RemoteAddress().(*net.TCPAddr); !tcp {
		return true
	}
	o := client.GetOpts()
	user := subtle.ConstantTimeCompare([]byte(o.Username), []byte(c.User))
	password := subtle.ConstantTimeCompare([]byte(o.Password), []byte(c.Password))
	return user&password == 1
}
