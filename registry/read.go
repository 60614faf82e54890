package registry

import (
	"context"
	"errors"
	"fmt"
)

// ReadAll reads every registration, by revision. It needs no view. Those that
// this version cannot read are left out, and the error, ErrUnreadable, says so
// beside all others.
func (r *Registry) ReadAll(ctx context.Context) ([]*Satellite, error) {
	all, faults, err := r.readAll(ctx)
	if err != nil {
		return nil, err
	}
	return all, errors.Join(faults...)
}

// Registered is ReadAll for whoever wants to know only how many are unreadable.
func (r *Registry) Registered(ctx context.Context) (sats []*Satellite, unreadable int, err error) {
	sats, faults, err := r.readAll(ctx)
	return sats, len(faults), err
}

// readAll gives the registrations, and why others cannot be read.
func (r *Registry) readAll(ctx context.Context) (all []*Satellite, faults []error, err error) {
	items, err := r.sats.List(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("read the registrations: %w", err)
	}
	all = make([]*Satellite, 0, len(items))
	for _, item := range items {
		s, err := decodeValue(item.Key, item.Value, item.Revision)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		all = append(all, s)
	}
	return all, faults, nil
}
