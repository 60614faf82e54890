package delivery

import (
	"errors"
	"fmt"
	"net/netip"
)

var (
	errTimeout      = errors.New("no complete answer within --notify-timeout")
	errNoConnection = errors.New("no connection was free within --notify-timeout; raise the limit of open files")
	errLapsed       = errors.New("the lease ended before the call was sent")
)

func statusError(addr netip.AddrPort, status int) error {
	return fmt.Errorf("%s answered with status %d", addr, status)
}
