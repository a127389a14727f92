// The SDK of CloudEvents for Go: an event in each of its modes to the address given.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/client"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/protocol"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func made(number int, reading json.RawMessage) event.Event {
	made := event.New()
	made.SetID(fmt.Sprint(number))
	made.SetSource("/buildings/B1")
	made.SetType("dev.temperature.reading.v1")
	made.SetSubject("Zürich \"1\" 50%")
	made.SetTime(time.Now())
	made.SetExtension("sequence", number)
	must(made.SetData(event.ApplicationJSON, reading))
	return made
}

func main() {
	address := os.Args[1]
	var readings []json.RawMessage
	must(json.Unmarshal([]byte(os.Args[2]), &readings))
	sender, err := cehttp.New(cehttp.WithTarget(address))
	must(err)
	events, err := client.New(sender)
	must(err)
	modes := []func(context.Context) context.Context{binding.WithForceBinary, binding.WithForceStructured}
	for number, mode := range modes {
		if result := events.Send(mode(context.Background()), made(number, readings[number])); !protocol.IsACK(result) {
			must(result)
		}
	}
	var batch []event.Event
	for number, reading := range readings[len(modes):] {
		batch = append(batch, made(number+len(modes), reading))
	}
	request, err := cehttp.NewHTTPRequestFromEvents(context.Background(), address, batch)
	must(err)
	response, err := http.DefaultClient.Do(request)
	must(err)
	if response.StatusCode != http.StatusCreated {
		must(fmt.Errorf("the batch was answered %s", response.Status))
	}
}
