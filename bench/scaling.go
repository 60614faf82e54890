package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// plantSpec is an installation with each role in processes of its own.
type plantSpec struct {
	Name       string
	Brokers    int
	Workers    int
	Satellites int
	Senders    int
	Ping       time.Duration // between two pings of a satellite
}

// The runs that the model's costs are taken from; it predicts the others.
const (
	fewByOne  = "1 worker, 10 satellites"
	fewByFour = "4 workers, 10 satellites"
	someByOne = "1 worker, 1,000 satellites"
	manyByOne = "1 worker, 10,000 satellites"
)

func plantSpecs() []plantSpec {
	const usual = time.Minute
	return []plantSpec{
		{fewByOne, 1, 1, 10, 64, usual},
		{fewByFour, 1, 4, 10, 64, usual},
		{"1 worker, 100 satellites", 1, 1, 100, 4, usual},
		{someByOne, 1, 1, 1000, 4, usual},
		{"2 workers, 1,000 satellites", 1, 2, 1000, 4, usual},
		{"4 workers, 1,000 satellites", 1, 4, 1000, 4, usual},
		{manyByOne, 1, 1, 10_000, 4, 10 * time.Second},
		{"1 worker, 100,000 satellites", 1, 1, 100_000, 4, usual},
		{"8 workers, 100,000 satellites", 1, 8, 100_000, 4, usual},
		{"3 brokers, 1 worker, 10 satellites", 3, 1, 10, 64, usual},
		{"3 brokers, 4 workers, 1,000 satellites", 3, 4, 1000, 4, usual},
	}
}

// plantResult is what an installation did in a second and used for it.
type plantResult struct {
	Spec        plantSpec
	Messages    float64
	Deliveries  float64
	Checkpoints float64
	Pings       float64
	Connections float64            // opened to satellites
	CPU         map[string]float64 // microseconds of all processes of a role
	Memory      map[string]float64 // resident bytes of all processes of a role
	Leader      float64            // microseconds of the broker that used most
}

// The roles whose costs are told apart.
const (
	roleFrontend = "frontend"
	roleBroker   = "broker"
	roleDelivery = "delivery"
	rolePinger   = "pinger"
)

var plantRoles = []string{roleFrontend, roleBroker, roleDelivery, rolePinger}

// scaling measures installations of several sizes, takes the costs of a message
// and of a delivery from some, and shows how well they tell the others'.
func scaling(ctx context.Context, o options, machine string) error {
	var all []plantResult
	var failed error
	for _, s := range plantSpecs() {
		if !o.only.MatchString(s.Name) || ctx.Err() != nil {
			continue
		}
		r := plantResult{}
		if err := runApart(ctx, o, s.Name, &r); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", s.Name, err))
			progress("%s: %v", s.Name, err)
			continue
		}
		progress("%s: %.0f messages/s, %.0f deliveries/s, %.1f µs of the workers each", s.Name, r.Messages, r.Deliveries, r.CPU[roleDelivery]/r.Deliveries)
		all = append(all, r)
	}
	fmt.Println(machine)
	printPlants(os.Stdout, all)
	m, err := calibrate(all)
	if err == nil {
		m.print(os.Stdout, all)
	} else {
		progress("no predictions: %v", err)
	}
	return errors.Join(failed, writeJSON(o.json, struct {
		Machine string        `json:"machine"`
		At      time.Time     `json:"at"`
		Model   model         `json:"model_us"`
		Results []plantResult `json:"results"`
	}{machine, time.Now().UTC(), m, all}))
}
