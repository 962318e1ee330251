// Command pictures lists the pictures, each with its metadata. Version 2 adds
// colours to them, which is what the canary is about.
package main

import (
	"log"
	"net/http"
	"strings"

	"github.com/xebec-mesh/xebec/samples/pictures/service"
)

// version is set when the program is built.
var version = "v1"

// Picture is one picture as visitors get it.
type Picture struct {
	ID     string   `json:"id"`
	Title  string   `json:"title"`
	Author string   `json:"author"`
	Place  string   `json:"place"`
	Colour []string `json:"colour,omitempty"` // version 2: sky, land, water
}

// Album is the answer to GET /pictures.
type Album struct {
	Version  string    `json:"version"`
	Pictures []Picture `json:"pictures"`
	// Callers are the SPIFFE IDs that pictures and metadata saw.
	Callers map[string]string `json:"callers,omitempty"`
}

var album = []Picture{
	{ID: "harbour", Colour: []string{"#f6b26b", "#3d5a80", "#98c1d9"}},
	{ID: "terraces", Colour: []string{"#cfe8ef", "#588157", "#a3b18a"}},
	{ID: "dunes", Colour: []string{"#ffd6a5", "#d4863b", "#b5651d"}},
	{ID: "glacier", Colour: []string{"#dbe9f4", "#6c8ea4", "#4fb3bf"}},
}

func main() {
	metadata := service.Env("METADATA_URL", "http://metadata:8080")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, r *http.Request) {
		service.WriteJSON(w, map[string]string{"version": version, "caller": service.Caller(r)})
	})
	mux.HandleFunc("GET /pictures", func(w http.ResponseWriter, r *http.Request) {
		answer := Album{Version: version, Callers: map[string]string{}}
		if caller := service.Caller(r); caller != "" {
			answer.Callers["pictures"] = caller
		}
		for _, p := range album {
			var about struct{ Title, Author, Place, Caller string }
			if err := service.Get(r, metadata+"/metadata/"+p.ID, &about); err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			if about.Caller != "" {
				answer.Callers["metadata"] = about.Caller
			}
			p.Title, p.Author, p.Place = about.Title, about.Author, about.Place
			if !strings.HasPrefix(version, "v2") {
				p.Colour = nil
			}
			answer.Pictures = append(answer.Pictures, p)
		}
		service.WriteJSON(w, answer)
	})
	if err := service.Run("pictures", "8080", mux); err != nil {
		log.Fatal("pictures: ", err)
	}
}
