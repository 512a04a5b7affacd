"""Who may do what? Users, roles, permissions, and how somebody proves who they are."""
