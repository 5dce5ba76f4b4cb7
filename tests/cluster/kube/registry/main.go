// Command registry is the distribution image registry with files as its only storage.
//
// It listens on loopback for the images that the tests build; the cloud storage drivers of the full one are left out.
package main

import (
	"os"

	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

func main() {
	if err := registry.RootCmd.Execute(); err != nil {
		os.Exit(1)
	}
}
