package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
)

// model is what things cost, in microseconds of one core.
type model struct {
	FrontendMessage    float64 // a message accepted
	BrokerMessage      float64 // a message stored
	BrokerRead         float64 // a message handed to one worker
	BrokerCheckpoint   float64 // a checkpoint stored, with its share of figures and leases
	DeliveryRead       float64 // a message read by one worker
	DeliveryCheckpoint float64 // a checkpoint made
	DeliveryCall       float64 // a delivery
	PingerPing         float64 // a ping
}

var errNoCalibration = errors.New("the runs that the costs are taken from were left out")

// calibrate takes the costs from runs in which one thing weighs most: many
// messages to few satellites by one and by four workers, and few messages to
// many satellites.
func calibrate(all []plantResult) (m model, err error) {
	var runs [4]plantResult
	for i, name := range []string{fewByOne, fewByFour, someByOne, manyByOne} {
		k := slices.IndexFunc(all, func(r plantResult) bool { return r.Spec.Name == name })
		if k < 0 {
			return m, errNoCalibration
		}
		runs[i] = all[k]
	}
	few, four, some, many := runs[0], runs[1], runs[2], runs[3]
	m.FrontendMessage = few.CPU[roleFrontend] / few.Messages
	m.PingerPing = many.CPU[rolePinger] / many.Pings
	broker := solve([3][3]float64{brokerTerms(few), brokerTerms(four), brokerTerms(some)}, [3]float64{few.CPU[roleBroker], four.CPU[roleBroker], some.CPU[roleBroker]})
	m.BrokerMessage, m.BrokerRead, m.BrokerCheckpoint = broker[0], broker[1], broker[2]
	worker := solve([3][3]float64{workerTerms(few), workerTerms(four), workerTerms(some)}, [3]float64{few.CPU[roleDelivery], four.CPU[roleDelivery], some.CPU[roleDelivery]})
	m.DeliveryRead, m.DeliveryCheckpoint, m.DeliveryCall = worker[0], worker[1], worker[2]
	return m, nil
}

func brokerTerms(r plantResult) [3]float64 {
	return [3]float64{r.Messages, r.Messages * float64(r.Spec.Workers), r.Checkpoints}
}

func workerTerms(r plantResult) [3]float64 {
	return [3]float64{r.Messages * float64(r.Spec.Workers), r.Checkpoints, r.Deliveries}
}

// predict is the CPU time of each role in a second, by the rates of that run.
func (m model) predict(r plantResult) map[string]float64 {
	b, w := brokerTerms(r), workerTerms(r)
	return map[string]float64{
		roleFrontend: m.FrontendMessage * r.Messages,
		roleBroker:   m.BrokerMessage*b[0] + m.BrokerRead*b[1] + m.BrokerCheckpoint*b[2],
		roleDelivery: m.DeliveryRead*w[0] + m.DeliveryCheckpoint*w[1] + m.DeliveryCall*w[2],
		rolePinger:   m.PingerPing * r.Pings,
	}
}

// solve is Cramer's rule for three costs.
func solve(a [3][3]float64, y [3]float64) (x [3]float64) {
	det := func(a [3][3]float64) float64 {
		return a[0][0]*(a[1][1]*a[2][2]-a[1][2]*a[2][1]) - a[0][1]*(a[1][0]*a[2][2]-a[1][2]*a[2][0]) + a[0][2]*(a[1][0]*a[2][1]-a[1][1]*a[2][0])
	}
	all := det(a)
	for i := range x {
		b := a
		for row := range b {
			b[row][i] = y[row]
		}
		x[i] = det(b) / all
	}
	return x
}

func printPlants(w io.Writer, all []plantResult) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "installation\tmessages/s\tdeliveries/s\tconnects/s\tcheckpoints/s\tpings/s\tfrontend µs/message\tbroker µs/message\tdelivery µs/delivery\tpinger µs/ping\tbusiest broker\tfrontend MB\tbroker MB\tdelivery MB\tpinger MB\t")
	for _, r := range all {
		fmt.Fprintf(t, "%s\t%.1f\t%.0f\t%.0f\t%.0f\t%.0f\t%.1f\t%.1f\t%.1f\t%s\t%.0f%%\t%.0f\t%.0f\t%.0f\t%.0f\t\n", r.Spec.Name, r.Messages, r.Deliveries, max(r.Connections, 0), r.Checkpoints, r.Pings,
			r.CPU[roleFrontend]/r.Messages, r.CPU[roleBroker]/r.Messages, r.CPU[roleDelivery]/r.Deliveries, figure(perPing(r), "%.1f"), r.Leader/1e4,
			r.Memory[roleFrontend]/1e6, r.Memory[roleBroker]/1e6, r.Memory[roleDelivery]/1e6, r.Memory[rolePinger]/1e6)
	}
	_ = t.Flush()
}

// perPing is what a ping costs, where there were enough to tell.
func perPing(r plantResult) float64 {
	if r.Pings < 100 {
		return 0
	}
	return r.CPU[rolePinger] / r.Pings
}

func (m model) print(w io.Writer, all []plantResult) {
	fmt.Fprintf(w, "\ncosts in µs: frontend %.1f a message; broker %.1f a message, %.1f a message and worker, %.1f a checkpoint; delivery %.1f a message and worker, %.1f a checkpoint, %.2f a delivery; pinger %.1f a ping\n",
		m.FrontendMessage, m.BrokerMessage, m.BrokerRead, m.BrokerCheckpoint, m.DeliveryRead, m.DeliveryCheckpoint, m.DeliveryCall, m.PingerPing)
	fmt.Fprintln(w, "CPU in ms a second, predicted / measured")
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "installation\tfrontend\tbroker\tdelivery\tpinger\tall, measured of predicted\t")
	for _, r := range all {
		fmt.Fprintf(t, "%s\t", r.Spec.Name)
		p := m.predict(r)
		predicted, measured := 0.0, 0.0
		for _, role := range plantRoles {
			fmt.Fprintf(t, "%.0f / %.0f\t", p[role]/1000, r.CPU[role]/1000)
			predicted, measured = predicted+p[role], measured+r.CPU[role]
		}
		fmt.Fprintf(t, "%.0f%%\t\n", math.Round(100*measured/predicted))
	}
	_ = t.Flush()
}
