package registry

import (
	"context"
	"errors"
	"fmt"
)

// Watch keeps the view until ctx ends, as Run does, and sweeps nothing: for
// tools, which leave the cluster as it is.
func (r *Registry) Watch(ctx context.Context) error { return r.follow(ctx) }

// ReadAll reads every registration, by revision. It needs no view. Those that
// this version cannot read are left out, and the error, ErrUnreadable, says so
// beside all others.
func (r *Registry) ReadAll(ctx context.Context) ([]*Satellite, error) {
	items, err := r.sats.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the registrations: %w", err)
	}
	all := make([]*Satellite, 0, len(items))
	var faults []error
	for _, item := range items {
		s, err := decodeValue(item.Key, item.Value, item.Revision)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		all = append(all, s)
	}
	return all, errors.Join(faults...)
}
