package model

import "reflect"

// sameMap says whether two maps are one object (not whether they are equal).
func sameMap[V any](a, b map[string]V) bool {
	return len(a) == len(b) && reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
}
