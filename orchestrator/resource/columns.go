package resource

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

var (
	nameColumn = metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: docName}
	ageColumn  = col("Age", "string", docCreated)
)

var (
	docName    = metav1.ObjectMeta{}.SwaggerDoc()["name"]
	docCreated = metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]
)

func columns(c ...metav1.TableColumnDefinition) []metav1.TableColumnDefinition { return c }

// col is a column that kubectl get always prints.
func col(name, typ, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: typ, Description: description}
}

// wide is a column that only kubectl get -o wide prints.
func wide(name, typ, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: typ, Priority: 1, Description: description}
}
