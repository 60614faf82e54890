package delivery

import (
	"errors"
	"fmt"
	"net/netip"
)

var (
	errTimeout      = errors.New("no complete answer within --notify-timeout")
	errNoConnection = errors.New("no connection was free within --notify-timeout; raise the limit of open files")
)

func statusError(addr netip.AddrPort, status int) error {
	return fmt.Errorf("%s answered with status %d", addr, status)
}
