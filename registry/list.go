package registry

import (
	"context"
	"fmt"
)

// Registered reads every registration that stands, for tools that do not Run
// the registry. Those that this version cannot read are left out, and counted
// in unreadable.
func (r *Registry) Registered(ctx context.Context) (sats []*Satellite, unreadable int, err error) {
	items, err := r.sats.List(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("list the registrations: %w", err)
	}
	for _, item := range items {
		sat, err := decodeValue(item.Key, item.Value, item.Revision)
		if err != nil {
			unreadable++
			continue
		}
		sats = append(sats, sat)
	}
	return sats, unreadable, nil
}
